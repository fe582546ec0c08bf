"""Say what a record is, and what can be stored."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from sqlalchemy import JSON, Column, Float, Integer, RowMapping, String

from deltamem_agents.archive.errors import RecordInvalidError
from deltamem_agents.policy import Trust
from deltamem_agents.policy.trust import QUARANTINED

__all__ = [
    "Added",
    "Namespace",
    "NewRecord",
    "Record",
    "Trust",
    "content_hash",
    "edited_id",
    "namespace_key",
    "original_id",
    "require_fitting",
    "require_name",
    "require_storable",
    "tags_of_both",
]

Namespace = tuple[str, ...]

# Together these fit into one entry of a Postgres index, which has room for about 2,700 bytes.
MAX_NAMESPACE_BYTES = 1024
MAX_NAME_BYTES = 512

_EDIT_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Record:
    """Hold one verbatim text with what is known of it; times are aware and in UTC."""

    id: str
    namespace: Namespace
    text: str
    hash: str
    thread: str | None
    message_id: str | None
    role: str
    source: str
    trust: Trust
    tags: tuple[str, ...]
    created: datetime
    expires: datetime | None
    version: int
    supersedes: str | None
    superseded_by: str | None
    superseded_at: datetime | None

    @classmethod
    def from_row(cls, row: RowMapping) -> "Record":
        """Read a row of the table `archive_records`."""
        values: dict[str, Any] = {name: row[name] for name in cls.__slots__}
        values["namespace"] = tuple(json.loads(values["namespace"]))
        values["tags"] = tuple(values["tags"])
        values["trust"] = Trust(values["trust"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class NewRecord:
    """Hold a text to be stored, and what is known of it.

    `thread` and `message_id` come together: they name the message that the text was. `ttl` counts from the write.
    Raises RecordInvalidError for text with NUL, for names that are empty or too long, and for a ttl of zero or less.
    """

    text: str
    thread: str | None = None
    message_id: str | None = None
    role: str = "user"
    source: str = "user"
    trust: Trust = Trust.MEDIUM
    tags: tuple[str, ...] = ()
    created: datetime | None = None
    ttl: timedelta | None = None

    def __post_init__(self) -> None:
        require_storable("the text of a record", self.text)
        if not self.text:
            raise RecordInvalidError("the text of a record is empty")
        if (self.thread is None) != (self.message_id is None):
            raise RecordInvalidError("a message is named by thread and message_id; give both or neither")
        names = {"thread": self.thread, "message_id": self.message_id, "role": self.role, "source": self.source}
        for what, name in names.items():
            if name is not None:
                require_name(what, name)
        for tag in self.tags:
            require_name("a tag", tag)
        if self.ttl is not None and self.ttl <= timedelta(0):
            raise RecordInvalidError(f"a ttl is positive; got {self.ttl}")


class Added(NamedTuple):
    """Hold a record, and how a text came to it: stored, merged into one that has it, or known as a message already.

    gone: the message was known already, and its record has expired or was deleted.
    """

    record: Record | None
    how: Literal["stored", "merged", "known", "gone"]


def namespace_key(namespace: object) -> str:
    """Encode a namespace as the one text that stands for it; two namespaces never share a text.

    Raises RecordInvalidError for anything but a non-empty tuple of non-empty labels, 1,024 bytes long at most.
    """
    if not isinstance(namespace, tuple) or not namespace or not all(isinstance(x, str) and x for x in namespace):
        raise RecordInvalidError(f"a namespace is a non-empty tuple of non-empty labels; got {namespace!r}")
    for label in namespace:
        require_storable("a label of the namespace", label)
    key = json.dumps(namespace, ensure_ascii=False, separators=(",", ":"))
    if len(key.encode()) > MAX_NAMESPACE_BYTES:
        raise RecordInvalidError(
            f"a namespace has at most {MAX_NAMESPACE_BYTES} bytes as JSON; got {len(key.encode())}"
        )
    return key


def require_name(what: str, name: str) -> None:
    """Raise RecordInvalidError for a name that is empty, not storable, or longer than 512 bytes."""
    require_storable(what, name)
    if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        raise RecordInvalidError(f"{what} has 1 to {MAX_NAME_BYTES} bytes; got {len(name.encode())}")


def require_storable(what: str, text: object) -> None:
    """Raise RecordInvalidError for text that one of the databases would refuse or change: NUL and lone surrogates."""
    if not isinstance(text, str):
        raise RecordInvalidError(f"{what} is a str; got {type(text).__name__}")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise RecordInvalidError(f"{what} holds NUL or a lone surrogate, which SQL cannot store; remove it first")


def require_fitting(column: Column[Any], value: object) -> None:
    """Raise ValueError for what a column cannot hold, which SQLite would store all the same."""
    if value is None and column.nullable:
        return
    if isinstance(column.type, JSON):
        fits = isinstance(value, list)
    elif isinstance(column.type, String):
        require_storable(column.name, value)
        fits = len(str(value)) <= (column.type.length or len(str(value)))
    elif isinstance(column.type, Float):
        fits = isinstance(value, int | float) and math.isfinite(value)
    else:
        fits = type(value) is int and abs(value) < 2 ** (31 if type(column.type) is Integer else 63)
    if not fits:
        raise ValueError(f"{value!r} is no {column.name}")


def content_hash(text: str) -> str:
    """Identify a text, byte for byte: the SHA-256 of its UTF-8 in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def edited_id(message_id: str | None, digest: str) -> str:
    """Return the id under which a message is archived again after someone has edited it. digest: of its new text."""
    return f"{message_id}#{digest[:_EDIT_DIGITS]}"


def original_id(archived_id: str, digest: str) -> str:
    """Return the id of the message itself; one may have # in it. digest: of the text that was archived under it."""
    return archived_id.removesuffix(f"#{digest[:_EDIT_DIGITS]}")


def tags_of_both(mine: Sequence[str], more: Sequence[str]) -> list[str]:
    """Add tags to others, but for quarantine: whoever repeats a text does not hide it, nor undo its approval."""
    return list(dict.fromkeys((*mine, *(tag for tag in more if tag != QUARANTINED))))
