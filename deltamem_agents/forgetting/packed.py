"""Read and write what a checkpoint holds without making objects of it, so that no type is lost on the way.

LangGraph's values are msgpack, in which each object is an extension: a number, and msgpack again. Here an extension
stays what it is; a message is recognised by the module that its class comes from.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import ormsgpack
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

__all__ = [
    "ENCRYPTED",
    "Codec",
    "Extension",
    "Opaque",
    "Typed",
    "fields_of",
    "held_by",
    "message_key",
    "with_fields",
    "with_held",
]

Typed = tuple[str, bytes]

_OPTIONS = ormsgpack.OPT_NON_STR_KEYS | ormsgpack.OPT_PASSTHROUGH_DATACLASS | ormsgpack.OPT_REPLACE_SURROGATES
_MESSAGES = "langchain_core.messages"
# LangGraph's numbers of extensions: those up to the fifth hold module, class and arguments, and perhaps a method.
_POSITIONAL, _NAMED, _SNAPSHOT = 1, range(6), 7
ENCRYPTED = "the checkpoints' values, which are encrypted"
"""What a search of the files of an encrypting saver does not read."""


@dataclass(frozen=True, slots=True)
class Extension:
    """Hold an object as its bytes."""

    code: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Opaque:
    """Hold a value that is neither msgpack nor bytes, as it was found."""

    typed: Typed


class Codec:
    """Turn stored values into plain data, and back; encrypted ones with the saver's key."""

    def __init__(self, serde: SerializerProtocol) -> None:
        """Take a saver's serializer."""
        self._encrypted = serde if isinstance(serde, EncryptedSerializer) else None
        self._serde = serde if self._encrypted is None else self._encrypted.serde

    @property
    def encrypted(self) -> bool:
        """Tell whether values are written encrypted."""
        return self._encrypted is not None

    def read(self, typed: Typed) -> Any:
        """Return plain data, in which objects are Extensions."""
        kind, data = typed
        if self._encrypted is not None and "+" in kind:
            kind, cipher = kind.split("+", 1)
            data = self._encrypted.cipher.decrypt(cipher, data)
        elif "+" in kind:
            self._serde.loads_typed(typed)  # says that a key is needed
        if kind == "msgpack":
            return _unpack(data)
        if kind in {"bytes", "null"}:
            return data if kind == "bytes" else None
        return Opaque((kind, data))

    def write(self, value: Any) -> Typed:
        """Return what a saver stores for plain data."""
        if isinstance(value, Opaque):
            kind, data = value.typed
        elif value is None:
            kind, data = "null", b""
        else:
            kind, data = ("bytes", value) if isinstance(value, bytes) else ("msgpack", _pack(value))
        if self._encrypted is None or kind == "empty":
            return kind, data
        cipher, hidden = self._encrypted.cipher.encrypt(data)
        return f"{kind}+{cipher}", hidden

    def message(self, extension: Extension) -> BaseMessage:
        """Make the message that an extension holds."""
        return cast("BaseMessage", self._serde.loads_typed(("msgpack", _pack(extension))))


def fields_of(extension: Extension) -> Mapping[str, Any] | None:
    """Return a message's fields, or None if the extension is no message."""
    if _MESSAGES.encode() not in extension.data[:64]:
        return None
    value = _unpack(extension.data)
    named = isinstance(value, list) and len(value) > 2 and isinstance(value[2], dict)
    return cast("Mapping[str, Any]", value[2]) if named and str(value[0]).startswith(_MESSAGES) else None


def with_fields(extension: Extension, fields: Mapping[str, Any]) -> Extension:
    """Return a message with other fields."""
    value = _unpack(extension.data)
    return Extension(extension.code, _pack([*value[:2], dict(fields), *value[3:]]))


def message_key(extension: Extension, fields: Mapping[str, Any]) -> str:
    """Return what a message is told from others by: its id, or its bytes where it has none."""
    identity: str | None = fields.get("id")
    return hashlib.sha256(extension.data).hexdigest() if identity is None else identity


def held_by(extension: Extension) -> Any:
    """Return what an object was made of, without the names of its class or of the node that a task is for.

    None for an array, and for what LangGraph did not write.
    """
    if extension.code == _SNAPSHOT:
        return _unpack(extension.data)
    if extension.code not in _NAMED:
        return None
    value = _unpack(extension.data)
    return value[2][_names(extension, value) :] if isinstance(value[2], list) else value[2]


def with_held(extension: Extension, held: Any) -> Extension | None:
    """Return an object made of something else; None if that makes none, such as a task without its arguments."""
    if extension.code == _SNAPSHOT:
        return Extension(extension.code, _pack(held))
    value = _unpack(extension.data)
    names = _names(extension, value)
    if isinstance(held, str) or (extension.code == _POSITIONAL and len(held) < len(value[2]) - names):
        return None
    arguments = [*value[2][:names], *held] if names else held
    return Extension(extension.code, _pack([*value[:2], arguments, *value[3:]]))


def _names(extension: Extension, value: Any) -> int:
    """Return how many of an object's arguments are names: of a task, the node that it is for."""
    return int(extension.code == _POSITIONAL and value[1] == "Send")


def _unpack(data: bytes) -> Any:
    return ormsgpack.unpackb(data, ext_hook=Extension, option=ormsgpack.OPT_NON_STR_KEYS)


def _pack(value: Any) -> bytes:
    return ormsgpack.packb(value, default=_extension, option=_OPTIONS)


def _extension(value: Any) -> ormsgpack.Ext:
    if isinstance(value, Extension):
        return ormsgpack.Ext(value.code, value.data)
    raise TypeError(f"plain data of a checkpoint holds no {type(value).__name__}")
