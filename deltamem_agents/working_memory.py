"""Hold a thread's working memory as one value, and turn it into the bytes that a checkpoint keeps."""

import base64
import binascii
import dataclasses
import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from backbone import MemoryState, StateFormatError, StateMismatchError, StateVersionError

__all__ = ["DIGEST_BYTES", "MAX_BYTES", "MAX_DIGESTS", "WorkingMemory"]

MAGIC: Final = b"DELTAMWM"
FORMAT_VERSION: Final = 1
MAX_BYTES: Final = 64 * 2**20
MAX_DIGESTS: Final = 1024
DIGEST_BYTES: Final = 8

# magic, format version, bytes of the header, bytes of everything between the header and the checksum
_PREFIX = struct.Struct("<8sHII")
_CHECKSUM = struct.Struct("<I")
_MAX_HEADER = 4096
_COUNTERS = ("turns", "messages", "tokens")


@dataclass(frozen=True, eq=False)
class WorkingMemory:
    """Hold S after exactly the absorbed messages, and what is needed to absorb every message once.

    state: the memory, batch of one. digests: identities of the newest absorbed messages, oldest first, 8 bytes each,
    at most 1,024. turns, messages, tokens: how many turns absorbed something, and what was absorbed in all.
    """

    state: MemoryState
    digests: tuple[bytes, ...] = ()
    turns: int = 0
    messages: int = 0
    tokens: int = 0

    @property
    def fingerprint(self) -> str:
        """Name the adapter and backbone that this memory belongs to."""
        return self.state.fingerprint

    @property
    def watermark(self) -> bytes | None:
        """Identify the last message that has left the window; None before any has."""
        return self.digests[-1] if self.digests else None

    @property
    def forgot_digests(self) -> bool:
        """Tell whether more messages have been absorbed than digests are kept."""
        return self.messages > len(self.digests)

    def absorb(self, state: MemoryState, digests: Sequence[bytes], tokens: int) -> "WorkingMemory":
        """Return the memory after one more turn moved its watermark over these messages, in order."""
        return WorkingMemory(
            state,
            (*self.digests, *digests)[-MAX_DIGESTS:],
            self.turns + 1,
            self.messages + len(digests),
            self.tokens + tokens,
        )

    def with_state(self, state: MemoryState) -> "WorkingMemory":
        """Return this memory with another state and the same watermark: what a control experiment compares with."""
        _require_same_layout(state, self.state)
        return dataclasses.replace(self, state=state)

    def to_bytes(self) -> bytes:
        """Serialise to one self-describing value; equal memories give equal bytes.

        Layout: magic, version, lengths, JSON header, digests, state (safetensors), crc32 of all before it.
        """
        header = {
            "fingerprint": self.fingerprint,
            "digests": len(self.digests),
            **{name: getattr(self, name) for name in _COUNTERS},
        }
        head = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        body = b"".join(self.digests) + self.state.to_bytes()
        data = _PREFIX.pack(MAGIC, FORMAT_VERSION, len(head), len(body)) + head + body
        return data + _CHECKSUM.pack(zlib.crc32(data))

    @classmethod
    def from_bytes(cls, data: bytes | str, *, like: MemoryState | None = None) -> "WorkingMemory":
        """Read what to_bytes wrote, as bytes or as base64 text.

        like: a state of the model that is to use the memory; fingerprint, layers and shapes must agree with it.
        Raises StateFormatError, StateVersionError, StateMismatchError or StateNotFiniteError; nothing is guessed.
        """
        raw = _as_bytes(data)
        header, body = _split(raw)
        count = _whole(header, "digests")
        if count > MAX_DIGESTS or count * DIGEST_BYTES > len(body):
            raise StateFormatError(
                f"the memory's header announces {count} digests in a body of {len(body)} bytes (at most {MAX_DIGESTS} "
                "are kept); the bytes were not written by this project"
            )
        expected = None if like is None else like.fingerprint
        state = MemoryState.from_bytes(body[count * DIGEST_BYTES :], expected_fingerprint=expected)
        if state.fingerprint != header.get("fingerprint"):
            raise StateFormatError("the memory's header names another adapter than its state; the bytes were altered")
        if like is not None:
            _require_same_layout(state, like)
        digests = tuple(body[at : at + DIGEST_BYTES] for at in range(0, count * DIGEST_BYTES, DIGEST_BYTES))
        return cls(state, digests, *(_whole(header, name) for name in _COUNTERS))


def _as_bytes(data: bytes | str) -> bytes:
    """Return the raw bytes, refusing what is too large before any of it is decoded."""
    if not isinstance(data, (bytes, str)):
        raise StateFormatError(f"a working memory is bytes or base64 text, got {type(data).__name__}")
    limit = MAX_BYTES if isinstance(data, bytes) else MAX_BYTES * 4 // 3 + 4
    if len(data) > limit:
        raise StateFormatError(f"a working memory has at most {MAX_BYTES} bytes, got {len(data)} {type(data).__name__}")
    if isinstance(data, bytes):
        return data
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise StateFormatError(f"a working memory given as text must be base64: {error}") from error


def _split(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Return header and body after checking magic, version, lengths and checksum."""
    if len(raw) < _PREFIX.size + _CHECKSUM.size or not raw.startswith(MAGIC):
        raise StateFormatError(
            f"these {len(raw)} bytes are not a working memory; it starts with {MAGIC.decode()} and is stored whole"
        )
    _, version, head_size, body_size = _PREFIX.unpack_from(raw)
    if version > FORMAT_VERSION:
        raise StateVersionError(
            f"the working memory has format {version}, this version of deltamem-agents reads up to {FORMAT_VERSION}; "
            "update deltamem-agents, or start a new thread"
        )
    size = _PREFIX.size + head_size + body_size + _CHECKSUM.size
    if version < 1 or head_size > _MAX_HEADER or size != len(raw):
        raise StateFormatError(f"the working memory is damaged: {size} bytes announced, {len(raw)} there")
    if _CHECKSUM.unpack(raw[-_CHECKSUM.size :])[0] != zlib.crc32(raw[: -_CHECKSUM.size]):
        raise StateFormatError("the working memory is damaged: its checksum does not fit its bytes")
    try:
        header = json.loads(raw[_PREFIX.size : _PREFIX.size + head_size])
    except (ValueError, RecursionError) as error:
        raise StateFormatError(f"the working memory's header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise StateFormatError(f"the working memory's header must be a JSON object, got {type(header).__name__}")
    return header, raw[_PREFIX.size + head_size : -_CHECKSUM.size]


def _whole(header: dict[str, Any], name: str) -> int:
    value = header.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise StateFormatError(f"the working memory's header must hold a whole number {name!r}, got {value!r}")
    return value


def _require_same_layout(state: MemoryState, like: MemoryState) -> None:
    """Refuse a state whose layers or shapes are not those of `like`."""
    found = {name: tuple(layer.shape) for name, layer in state.layers.items()}
    wanted = {name: tuple(layer.shape) for name, layer in like.layers.items()}
    if state.fingerprint != like.fingerprint or found != wanted:
        names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        detail = ", ".join(f"{name}: {found.get(name)} instead of {wanted.get(name)}" for name in names[:3])
        raise StateMismatchError(
            f"the memory belongs to adapter {state.fingerprint[:12]}, the model has {like.fingerprint[:12]} "
            f"({detail or 'same shapes'}); use the adapter that wrote it, or start a new thread"
        )
