"""Look for texts in bytes without having the texts: by fingerprints, at every offset.

The fingerprint of b_0 … b_n is Σ b_i p^i mod 2^64. From the sums up to every offset that of each window follows at
once, so a file is read once however many texts are looked for.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHORTEST", "Needle", "blocks_of", "found_in", "needles_of", "pieces_of"]

SHORTEST: Final = 8
"""Bytes of the shortest text that is looked for."""

_PIECE = 64
_BLOCK = 4 * 2**20
_PRIME = 0x9E3779B97F4A7C15  # odd, so that it has an inverse
_INVERSE = pow(_PRIME, -1, 2**64)
Numbers = NDArray[np.uint64]
Known = dict[int, dict[int, dict[int, set["Needle"]]]]
"""The needles by the first 8 bytes of a piece, its size, and all of it."""


@dataclass(frozen=True, slots=True)
class Needle:
    """Hold a piece of a text as two fingerprints. text: which text it is of; start: of its first 8 bytes."""

    text: int
    size: int
    start: int
    whole: int


def needles_of(texts: Sequence[str]) -> list[Needle]:
    """Return the needles of texts: as UTF-8 and as JSON writes them, long ones in pieces of 64 bytes.

    Databases cut long values where a page ends, so whole pieces are found where the whole text would not be.
    """
    found = []
    for number, text in enumerate(texts):
        plain = text.encode("utf-8", "surrogatepass")
        for form in dict.fromkeys((plain, json.dumps(text)[1:-1].encode())):
            found += [_needle(number, piece) for piece in pieces_of(form)]
    return found


def pieces_of(data: bytes) -> list[bytes]:
    """Cut a text into the pieces that are looked for; none of one under 8 bytes."""
    pieces = [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)]
    return [piece for piece in pieces if len(piece) >= (SHORTEST if len(pieces) == 1 else _PIECE // 2)]


def found_in(chunks: Iterable[bytes], needles: Iterable[Needle]) -> set[Needle]:
    """Return the needles that are found; one across two chunks is not."""
    starts: Known = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for needle in needles:
        starts[needle.start][needle.size][needle.whole].add(needle)
    wanted = np.asarray(sorted(starts), np.uint64)
    found: set[Needle] = set()
    for chunk in chunks:
        if len(chunk) >= SHORTEST and len(wanted):
            found |= _search(chunk, wanted, starts)
    return found


def blocks_of(file: Path) -> Iterator[bytes]:
    """Yield a file in blocks that overlap by the largest piece."""
    with file.open("rb") as stream:
        tail = b""
        while block := stream.read(_BLOCK):
            yield tail + block
            tail = (tail + block)[-(_PIECE - 1) :]


def _search(chunk: bytes, wanted: Numbers, starts: Known) -> set[Needle]:
    sums, back = _sums(chunk)
    windows = (sums[SHORTEST:] - sums[:-SHORTEST]) * back[: len(chunk) - SHORTEST + 1]
    place = np.searchsorted(wanted, windows)
    place[place == len(wanted)] = 0
    found: set[Needle] = set()
    for at in np.flatnonzero(wanted[place] == windows):
        for size, wholes in starts[int(windows[at])].items():
            if at + size <= len(chunk):
                whole = (int(sums[at + size]) - int(sums[at])) * int(back[at]) % 2**64
                found |= wholes.get(whole, set())
    return found


def _sums(chunk: bytes) -> tuple[Numbers, Numbers]:
    """Return Σ b_i p^i up to every offset, and p^-i for every offset."""
    size = len(chunk)
    powers = _powers(_PRIME, size)
    sums = np.zeros(size + 1, np.uint64)
    np.cumsum(np.frombuffer(chunk, np.uint8) * powers, out=sums[1:])
    return sums, _powers(_INVERSE, size)


def _powers(base: int, size: int) -> Numbers:
    powers = np.full(size, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)


def _needle(text: int, piece: bytes) -> Needle:
    return Needle(text, len(piece), _fingerprint(piece[:SHORTEST]), _fingerprint(piece))


def _fingerprint(piece: bytes) -> int:
    return sum(byte * pow(_PRIME, place, 2**64) for place, byte in enumerate(piece)) % 2**64
