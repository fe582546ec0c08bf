"""all-MiniLM-L6-v2: only the published weights are used, and they give the published vectors."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from backbone import ConfigError
from deltamem_agents.archive import minilm
from deltamem_agents.archive.embeddings import resolve_embeddings
from deltamem_agents.archive.minilm import MINILM_SHA256, MiniLMEmbeddings


def test_other_weights_are_refused(tmp_path: Path) -> None:
    """A file that is not byte for byte the published one is never loaded, and neither is a missing one."""
    with pytest.raises(ConfigError, match="not the published"):
        MiniLMEmbeddings(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"altered")
    assert hashlib.sha256(b"altered").hexdigest() != MINILM_SHA256
    with pytest.raises(ConfigError, match="not the published"):
        MiniLMEmbeddings(tmp_path)


def test_without_the_extra_there_are_no_default_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for MiniLM says what to install; asking for nothing gives nothing."""
    monkeypatch.setattr(minilm, "_PACKAGE", "no_such_package")
    assert resolve_embeddings(None) is None
    with pytest.raises(ConfigError, match=r"\[minilm\]"):
        MiniLMEmbeddings()


def test_vectors_are_unit_length_and_close_for_close_meanings() -> None:
    """Padding changes nothing, and a paraphrase is nearer than another subject."""
    model = resolve_embeddings(None)
    assert model is not None
    texts = ["The cat sits on the mat.", "A kitten is resting on a rug.", "Interest rates rose sharply in March, " * 9]
    together = model.embed_texts(texts)
    alone = np.stack([model.embed_query(text) for text in texts])
    assert together.shape == (3, 384)
    assert np.linalg.norm(together, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert together == pytest.approx(alone, abs=1e-5)
    assert together[0] @ together[1] > 0.5 > together[0] @ together[2] + 0.3
