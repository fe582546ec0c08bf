"""The working memory's value and its bytes."""

import base64
import contextlib
import struct
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbone import (
    MemoryState,
    StateError,
    StateFormatError,
    StateMismatchError,
    StateNotFiniteError,
    StateVersionError,
)
from deltamem_agents.working_memory import MAX_BYTES, MAX_DIGESTS, WorkingMemory

SHAPES = {"layers.0": (1, 4), "layers.1": (2, 4)}


def example(fingerprint: str = "abc", *, shapes: dict[str, tuple[int, int]] = SHAPES, seed: int = 0) -> WorkingMemory:
    generator = torch.Generator().manual_seed(seed)
    layers = {name: torch.randn(1, h, r, r, generator=generator) for name, (h, r) in shapes.items()}
    return WorkingMemory(MemoryState(layers, fingerprint)).absorb(MemoryState(layers, fingerprint), [b"01234567"], 9)


def altered(data: bytes, at: int, new: bytes) -> bytes:
    """Replace bytes and make the checksum fit, as a forger would."""
    body = bytearray(data[:-4])
    body[at : at + len(new)] = new
    return bytes(body) + struct.pack("<I", zlib.crc32(body))


@given(st.lists(st.binary(min_size=8, max_size=8), max_size=40), st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_bytes_and_base64_text_give_the_same_value_back(digests: list[bytes], tokens: int) -> None:
    """What is read equals what was written, and equal values have equal bytes."""
    memory = example().absorb(example(seed=1).state, digests, tokens)
    data = memory.to_bytes()
    for form in (data, base64.b64encode(data).decode()):
        read = WorkingMemory.from_bytes(form, like=MemoryState.zeros(SHAPES, "abc"))
        assert read.to_bytes() == data
        assert (read.digests, read.turns, read.messages, read.tokens) == (
            memory.digests, memory.turns, memory.messages, memory.tokens,
        )  # fmt: skip
        assert all(torch.equal(read.state.layers[name], layer) for name, layer in memory.state.layers.items())


def test_size_is_flat_however_many_messages_are_absorbed() -> None:
    """Beyond the newest 1,024 digests nothing grows but the counters' digits."""
    memory = example()
    sizes = []
    for turn in range(40):
        digests = [struct.pack("<Q", turn * 100 + n) for n in range(100)]
        memory = memory.absorb(memory.state, digests, 1000)
        sizes.append(len(memory.to_bytes()))
    assert len(memory.digests) == MAX_DIGESTS
    assert memory.messages == 4001
    assert memory.forgot_digests
    assert memory.watermark == struct.pack("<Q", 3999)
    assert max(sizes[11:]) - min(sizes[11:]) <= 4


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_truncation_or_altered_byte_is_refused(data: st.DataObject) -> None:
    """Damage never gives a memory; it raises an error of the project."""
    raw = example().to_bytes()
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(StateError):
        WorkingMemory.from_bytes(raw[:cut])
    at = data.draw(st.integers(0, len(raw) - 1))
    flipped = bytes([*raw[:at], raw[at] ^ data.draw(st.integers(1, 255)), *raw[at + 1 :]])
    with pytest.raises(StateError):
        WorkingMemory.from_bytes(flipped)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_forged_bytes_with_a_fitting_checksum_never_crash(data: st.DataObject) -> None:
    """A forger's bytes are read as a valid memory or refused with an error of the project, nothing else."""
    raw = example().to_bytes()
    forged = altered(raw, data.draw(st.integers(0, len(raw) - 5)), data.draw(st.binary(min_size=1, max_size=4)))
    with contextlib.suppress(StateError):
        WorkingMemory.from_bytes(forged, like=MemoryState.zeros(SHAPES, "abc"))


def test_a_newer_version_is_refused_and_says_to_update() -> None:
    """A format from the future is named as such, though its checksum fits."""
    with pytest.raises(StateVersionError, match="update"):
        WorkingMemory.from_bytes(altered(example().to_bytes(), 8, struct.pack("<H", 2)))


@pytest.mark.parametrize("like", [MemoryState.zeros(SHAPES, "other"), MemoryState.zeros({"layers.0": (1, 4)}, "abc")])
def test_a_memory_of_another_adapter_or_shape_is_refused(like: MemoryState) -> None:
    """Fingerprint, layers and shapes must be the model's."""
    with pytest.raises(StateMismatchError):
        WorkingMemory.from_bytes(example().to_bytes(), like=like)


def test_not_finite_values_are_refused_on_the_way_out_and_in() -> None:
    """NaN neither enters a checkpoint nor leaves one."""
    broken = MemoryState({"layers.0": torch.full((1, 1, 2, 2), float("nan"))}, "abc")
    with pytest.raises(StateNotFiniteError):
        WorkingMemory(broken).to_bytes()
    whole = WorkingMemory(MemoryState({"layers.0": torch.zeros(1, 1, 2, 2)}, "abc")).to_bytes()
    nan = struct.pack("<f", float("nan"))
    inner = whole.rindex(b"DELTAMEM")
    state = whole[inner:-8]
    state = state[:-4] + nan
    forged = altered(whole, inner, state + struct.pack(">I", zlib.crc32(state)))
    with pytest.raises(StateNotFiniteError):
        WorkingMemory.from_bytes(forged)


@pytest.mark.parametrize("data", [b"", b"hello", "no base64 %", "aGVsbG8=", b"\0" * (MAX_BYTES + 1), 7])
def test_what_is_no_memory_is_refused(data: object) -> None:
    """Foreign bytes, text that is not base64, oversized values and other types are format errors."""
    with pytest.raises(StateFormatError):
        WorkingMemory.from_bytes(data)  # type: ignore[arg-type]


def test_oversized_text_is_refused_before_it_is_decoded() -> None:
    """The limit holds for base64 text too."""
    with pytest.raises(StateFormatError, match="at most"):
        WorkingMemory.from_bytes("A" * (MAX_BYTES * 4 // 3 + 8))


def test_another_state_can_stand_in_with_the_same_watermark() -> None:
    """with_state keeps digests and counters, and refuses another layout."""
    memory = example()
    zeroed = memory.with_state(MemoryState.zeros(SHAPES, "abc"))
    assert zeroed.digests == memory.digests
    assert not any(layer.any() for layer in zeroed.state.layers.values())
    with pytest.raises(StateMismatchError):
        memory.with_state(MemoryState.zeros(SHAPES, "other"))
