"""Compare with the published implementation's outputs (tests/golden/README.md)."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from backbone.adapter.files import load_adapter
from backbone.adapter.model import MemoryModel
from backbone.adapter.state import MemoryState

GOLDEN = Path(__file__).parents[2] / "golden"
TOKEN_CASES = ("tsw_qwen3_qo", "tsw_smollm3_qo", "msw_qwen3_qo")
TOLERANCE = 1e-4

Run = Callable[[MemoryModel, dict[str, Tensor]], tuple[Tensor, MemoryState]]


@pytest.fixture(params=["eager", "sdpa"])
def attention(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(case: str, attention: str) -> tuple[MemoryModel, dict[str, Tensor]]:
    base = AutoModelForCausalLM.from_pretrained(GOLDEN / case / "base", attn_implementation=attention)
    return load_adapter(base, GOLDEN / case / "adapter").eval(), load_file(GOLDEN / case / "expected.safetensors")


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def assert_agrees(run: str, expected: dict[str, Tensor], logits: Tensor, memory: MemoryState) -> None:
    assert relative_error(logits, expected[f"{run}.logits"]) < TOLERANCE
    prefix = f"{run}.state."
    states = {name.removeprefix(prefix): state for name, state in expected.items() if name.startswith(prefix)}
    assert states.keys() == memory.layers.keys()
    for name, state in states.items():
        assert relative_error(memory.layers[name], state.view(memory.layers[name].shape)) < TOLERANCE


def in_pieces(
    model: MemoryModel, ids: Tensor, lengths: tuple[int, ...], segment_ids: Tensor | None = None
) -> tuple[Tensor, MemoryState]:
    """Feed pieces one after another, cache and memory carried."""
    memory, past, logits, start = model.empty_memory(len(ids)), None, [], 0
    for length in lengths:
        piece = slice(start, start + length)
        messages = None if segment_ids is None else segment_ids[:, piece]
        out = model(ids[:, piece], past_key_values=past, memory=memory, segment_ids=messages)
        memory, past, start = out.memory, out.past_key_values, start + length
        logits.append(out.logits)
    return torch.cat(logits, 1), memory


def full(model: MemoryModel, expected: dict[str, Tensor]) -> tuple[Tensor, MemoryState]:
    out = model(expected["input_ids"])
    return out.logits, out.memory


def read(model: MemoryModel, expected: dict[str, Tensor]) -> tuple[Tensor, MemoryState]:
    ids = expected["read.input_ids"]
    out = model(ids, memory=model(expected["input_ids"]).memory, write_mask=torch.zeros_like(ids, dtype=torch.bool))
    return out.logits, out.memory


def chunks(model: MemoryModel, expected: dict[str, Tensor]) -> tuple[Tensor, MemoryState]:
    return in_pieces(model, expected["input_ids"], (17, 21, 1, 1, 1))


def padded(model: MemoryModel, expected: dict[str, Tensor]) -> tuple[Tensor, MemoryState]:
    mask = expected["padded.attention_mask"]
    out = model(expected["input_ids"], attention_mask=mask, position_ids=expected["padded.position_ids"])
    return out.logits.where(mask[..., None] != 0, expected["padded.logits"]), out.memory


@pytest.mark.parametrize("run", [full, read, chunks, padded])
@pytest.mark.parametrize("case", TOKEN_CASES)
@torch.no_grad()
def test_token_writing_agrees_with_the_published_code(case: str, run: Run, attention: str) -> None:
    """Logits and states of every run are the published code's, with eager and with SDPA attention."""
    model, expected = load(case, attention)
    logits, memory = run(model, expected)
    assert_agrees(run.__name__, expected, logits, memory)


@pytest.mark.parametrize("lengths", [(41,), (7, 12, 11, 11), (5, 15, 1, 1, 19)], ids=str)
@torch.no_grad()
def test_message_writing_agrees_with_the_published_code(lengths: tuple[int, ...], attention: str) -> None:
    """SSW gives the published states and logits whether messages come in one pass, one a pass, or cut anywhere."""
    model, expected = load("ssw_qwen3_qo", attention)
    logits, memory = in_pieces(model, expected["input_ids"], lengths, expected["messages.segment_ids"])
    assert_agrees("messages", expected, logits, memory)


@torch.no_grad()
def test_padding_positions_are_found_from_the_mask(attention: str) -> None:
    """Without position ids, a left-padded batch gives what it gives with the right ones."""
    model, expected = load("tsw_qwen3_qo", attention)
    mask = expected["padded.attention_mask"]
    out = model(expected["input_ids"], attention_mask=mask)
    logits = out.logits.where(mask[..., None] != 0, expected["padded.logits"])
    assert_agrees("padded", expected, logits, out.memory)
