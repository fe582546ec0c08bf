"""Turn states into bytes and back.

Layout, integers big-endian: 8 bytes magic, u16 version, u32 header length, header (JSON: fingerprint, layer names),
payload (safetensors: one float32 tensor a layer), u32 crc32 of everything before it.
"""

import base64
import binascii
import json
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from backbone.errors import StateFormatError, StateNotFiniteError, StateVersionError

MAGIC = b"DELTAMEM"
VERSION = 1
MAX_BYTES = 64 * 1024 * 1024  # a Qwen3-4B MSW state is 37 kB; whatever is larger than this was not written here
MAX_HEADER = 1024 * 1024
MAX_VALUE = 1e6  # of a state; values of healthy states are of the order of 1, and a runaway one soon passes this

_START = struct.Struct(">8sHI")
_CRC = struct.Struct(">I")
_LENGTH = struct.Struct("<Q")  # begins a safetensors payload


def encode(layers: Mapping[str, Tensor], fingerprint: str) -> bytes:
    """Write float32 states; raises StateNotFiniteError for NaN, infinity, or values beyond MAX_VALUE."""
    tensors = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in layers.items()}
    _require_finite(tensors)
    header = json.dumps({"fingerprint": fingerprint, "layers": list(tensors)}, separators=(",", ":")).encode()
    body = _START.pack(MAGIC, VERSION, len(header)) + header + safetensors.torch.save(tensors)
    return body + _CRC.pack(zlib.crc32(body))


def decode(data: bytes | str) -> tuple[dict[str, Tensor], str]:
    """Read states and fingerprint from what `encode` wrote, or from its base64 text."""
    raw = _raw(data)
    if len(raw) > MAX_BYTES:
        raise StateFormatError(f"a state has at most {MAX_BYTES} bytes, got {len(raw)}")
    if len(raw) < _START.size + _CRC.size or not raw.startswith(MAGIC):
        raise StateFormatError(
            f"these {len(raw)} bytes are not a memory state (they lack its magic number or were cut)"
        )
    _, version, header_length = _START.unpack_from(raw)
    if version > VERSION:
        raise StateVersionError(f"the state has version {version}, this project reads up to {VERSION}; update it")
    if version < 1:
        raise StateFormatError(f"the state has version {version}, which was never in use")
    body = raw[: -_CRC.size]
    if zlib.crc32(body) != _CRC.unpack(raw[-_CRC.size :])[0]:
        raise StateFormatError("the state's checksum is wrong: it was truncated or altered")
    if header_length > MAX_HEADER:
        raise StateFormatError(f"a state's header has at most {MAX_HEADER} bytes, this one announces {header_length}")
    payload_at = _START.size + header_length
    names, fingerprint = _read_header(body[_START.size : payload_at])
    _check_announced(body[payload_at:], names)
    try:
        tensors = safetensors.torch.load(body[payload_at:])
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise StateFormatError(f"the state's tensors cannot be read: {error}") from error
    _require_finite(tensors)
    return {name: tensors[name] for name in names}, fingerprint


def _raw(data: bytes | str) -> bytes:
    if isinstance(data, bytes):
        return data
    if not isinstance(data, str):
        raise StateFormatError(f"expected bytes or base64 text, got {type(data).__name__}")
    if len(data) > MAX_BYTES * 4 // 3 + 4:
        raise StateFormatError(f"a state has at most {MAX_BYTES} bytes, got {len(data)} characters of base64")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise StateFormatError(f"the state's text is not base64: {error}") from error


def _read_header(raw: bytes) -> tuple[list[str], str]:
    try:
        header = json.loads(raw)
        names, fingerprint = header["layers"], header["fingerprint"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StateFormatError(f"the state's header cannot be read: {error!r}") from error
    if not isinstance(fingerprint, str) or not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise StateFormatError("the state's header has a fingerprint or layer names that are not text")
    return names, fingerprint


def _check_announced(payload: bytes, names: list[str]) -> None:
    """Check layers, types, shapes and size by what the payload announces, before any tensor is made."""
    (length,) = _LENGTH.unpack_from(payload.ljust(_LENGTH.size, b"\0"))
    values_at = _LENGTH.size + length
    if length > MAX_HEADER or values_at > len(payload):
        raise StateFormatError(f"the state's tensors announce {length} bytes of header in {len(payload)} bytes")
    try:
        announced = json.loads(payload[_LENGTH.size : values_at])
        shapes = {name: _shape(name, entry) for name, entry in announced.items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StateFormatError(f"the header of the state's tensors cannot be read: {error!r}") from error
    if not names or sorted(shapes) != sorted(names):
        raise StateFormatError(f"the state's header names {len(names)} layers, its tensors are {sorted(shapes)[:4]}")
    if len({shape[0] for shape in shapes.values()}) != 1:
        raise StateFormatError(f"the layers of a state have one batch size, got {sorted(shapes.items())[:4]}")
    size = sum(4 * math.prod(shape) for shape in shapes.values())
    if size != len(payload) - values_at:
        raise StateFormatError(
            f"the state's tensors announce {size} bytes of values, {len(payload) - values_at} are there"
        )


def _shape(name: str, entry: Mapping[str, Any]) -> tuple[int, int, int, int]:
    shape = entry["shape"]
    whole = isinstance(shape, list) and all(isinstance(size, int) and 0 < size <= MAX_BYTES for size in shape)
    if not whole or len(shape) != 4 or shape[2] != shape[3] or entry["dtype"] != "F32":
        raise StateFormatError(f"{name[:80]} must be float32 [B, H, r, r], got {entry['dtype']!r} {str(shape)[:80]}")
    return shape[0], shape[1], shape[2], shape[3]


def _require_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise StateNotFiniteError(f"the state of {name} holds NaN or infinity; go back to an older checkpoint")
        if (largest := float(tensor.abs().max())) > MAX_VALUE:
            raise StateNotFiniteError(
                f"the state of {name} has grown to {largest:.3g}, the limit is {MAX_VALUE:.0e}; "
                "go back to an older checkpoint"
            )
