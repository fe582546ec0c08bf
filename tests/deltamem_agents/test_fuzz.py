"""Hostile bytes in place of a memory: ten thousand mutations of each format, and sizes that would fill the machine."""

import base64
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

from backbone import MemoryState, StateError, StateFormatError
from deltamem_agents.working_memory import WorkingMemory

MUTATIONS = 10_000
SHAPES = {"layers.0": (1, 4), "layers.1": (2, 4)}


def state() -> MemoryState:
    generator = torch.Generator().manual_seed(0)
    return MemoryState({name: torch.randn(1, h, r, r, generator=generator) for name, (h, r) in SHAPES.items()}, "abc")


def state_checksum(body: bytes) -> bytes:
    return body + struct.pack(">I", zlib.crc32(body))


def memory_checksum(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


FORMATS: dict[str, tuple[bytes, Callable[[bytes], Any], Callable[[bytes], bytes]]] = {
    "state": (state().to_bytes(), MemoryState.from_bytes, state_checksum),
    "working-memory": (
        WorkingMemory(state()).absorb(state(), [b"01234567"] * 3, 40).to_bytes(),
        WorkingMemory.from_bytes,
        memory_checksum,
    ),
}


def mutated(data: bytes, randomly: random.Random) -> bytes:
    """Change bytes in one of the ways that files and forgers do."""
    at, other = randomly.randrange(len(data)), randomly.randrange(len(data))
    noise = randomly.randbytes(randomly.choice([1, 2, 4, 8, 64]))
    low, high = sorted((at, other))
    return randomly.choice([
        lambda: data[:at],
        lambda: data[:at] + noise + data[at + len(noise) :],
        lambda: data[:at] + noise + data[at:],
        lambda: data[:low] + data[high:],
        lambda: data[:high] + data[low:],
        lambda: data[:at] + bytes([data[at] ^ (1 << randomly.randrange(8))]) + data[at + 1 :],
        lambda: data[:at] + randomly.choice([b"\0", b"\xff"]) * 4 + data[at + 4 :],
        lambda: noise + data,
        lambda: data + noise,
    ])()  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_ten_thousand_mutations_are_refused(name: str) -> None:
    """No damaged value is taken, as bytes or as text, and none raises anything but the project's error."""
    data, read, _ = FORMATS[name]
    randomly = random.Random(1)
    for count in range(MUTATIONS):
        damaged = mutated(data, randomly)
        if damaged == data:
            continue
        with pytest.raises(StateError):
            read(damaged if count % 8 else base64.b64encode(damaged).decode())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMATS)
def test_ten_thousand_forgeries_do_not_break_the_reader(name: str) -> None:
    """With a checksum that fits, a mutation is refused, or is a finite memory that can be written again."""
    data, read, with_checksum = FORMATS[name]
    randomly = random.Random(2)
    taken = 0
    for _ in range(MUTATIONS):
        try:
            value = read(with_checksum(mutated(data[:-4], randomly)))
        except StateError:
            continue
        taken += 1
        layers = getattr(value, "state", value).layers
        assert all(layer.dim() == 4 and torch.isfinite(layer).all() for layer in layers.values())
        assert read(value.to_bytes()).to_bytes() == value.to_bytes()
    assert taken < MUTATIONS // 2


def forged_state(shape: list[int], *, dtype: str = "F32", values: int = 64) -> bytes:
    """Write a state whose tensors announce this shape, whatever is there."""
    head = json.dumps({"fingerprint": "abc", "layers": ["x"]}).encode()
    tensors = json.dumps({"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, values]}}).encode()
    payload = struct.pack("<Q", len(tensors)) + tensors + bytes(values)
    return state_checksum(struct.pack(">8sHI", b"DELTAMEM", 1, len(head)) + head + payload)


@pytest.mark.parametrize(
    "shape",
    [[1, 1, 2**20, 2**20], [2**40, 1, 4, 4], [1, 1, 4, 8], [1, 16], [-1, 1, 4, 4], [0, 1, 4, 4], ["1", 1, 4, 4]],
)
def test_announced_shapes_are_checked_before_anything_is_allocated(shape: list[int]) -> None:
    """A header of some bytes cannot make the reader ask for terabytes; the shape itself is what is refused."""
    with pytest.raises(StateFormatError, match=r"announce|must be float32"):
        MemoryState.from_bytes(forged_state(shape))


def test_a_forged_state_of_the_right_shape_is_read() -> None:
    """So that the refusals above are of shapes, not of the forgery."""
    assert MemoryState.from_bytes(forged_state([1, 1, 4, 4])).layers["x"].shape == (1, 1, 4, 4)
    with pytest.raises(StateFormatError, match="must be float32"):
        MemoryState.from_bytes(forged_state([1, 1, 4, 4], dtype="F16", values=32))


def test_a_header_that_is_too_long_is_refused_before_it_is_read() -> None:
    """Lengths are checked against their limits first."""
    head = b"[" * (2**20 + 1)
    forged = state_checksum(struct.pack(">8sHI", b"DELTAMEM", 1, len(head)) + head)
    with pytest.raises(StateFormatError, match="at most 1048576 bytes"):
        MemoryState.from_bytes(forged)
