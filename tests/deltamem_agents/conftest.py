"""What several tests share: a small random model on disk, shaped as the bundled one, and a Postgres server."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from backbone import DeltaMemConfig, EngineRegistry, attach_memory, save_adapter
from deltamem_agents import ChatDeltaMem

TEMPLATE = Path(__file__).parents[2] / "backbone" / "tiny" / "chat_template.jinja"
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAGS = [
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
    "<think>",
    "</think>",
]
# Common words become one token each, so that a message has about as many tokens as words.
WORDS = "user assistant system tool the a of and to is my we you hello yes no what which name weather in result " * 4


def build_tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=CONTROL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([WORDS], trainer)
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return tokenizer


def build_model(vocabulary: int) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=4096,
    )
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight[: len(CONTROL)] = (
            0  # never the likeliest, so that every greedy reply has max_tokens tokens
        )
    return model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a random model, its tokenizer and one adapter of each kind; return the folder."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    build_model(len(tokenizer)).save_pretrained(folder)
    kinds: dict[str, dict[str, Any]] = {
        "token": {},
        "message": {"granularity": "message"},
        "sentence": {"granularity": "sentence"},
        "states": {"num_states": 4},
    }
    for name, options in kinds.items():
        memory_model = attach_memory(build_model(len(tokenizer)), DeltaMemConfig(rank=4, **options), seed=1)
        # Fresh adapters read nothing; these must, or no test could tell one memory from another.
        generator = torch.Generator().manual_seed(2)
        for tensor in memory_model.adapter_tensors().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.3)
        memory_model.refresh_fingerprint()
        save_adapter(memory_model, folder / name)
    return folder


@pytest.fixture(scope="session")
def registry() -> Iterator[EngineRegistry]:
    """Share loaded models between tests, and end their threads afterwards."""
    registry = EngineRegistry()
    yield registry
    registry.close()


@pytest.fixture(scope="session")
def make_model(model_folder: Path, registry: EngineRegistry) -> Callable[..., ChatDeltaMem]:
    """Make a ChatDeltaMem over the random model, with a window of a few messages."""

    def make(**options: Any) -> ChatDeltaMem:
        defaults: dict[str, Any] = {
            "model": str(model_folder),
            "adapter": str(model_folder / "token"),
            "window_tokens": 120,
            "keep_tokens": 40,
            "max_tokens": 12,
            "registry": registry,
        }
        return ChatDeltaMem(**{**defaults, **options})

    return make


@pytest.fixture
def model(make_model: Callable[..., ChatDeltaMem]) -> ChatDeltaMem:
    """Return a ChatDeltaMem with the default small window."""
    return make_model()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """Make an empty database in Postgres for one test."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgres_server.replace("/postgres?", f"/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
