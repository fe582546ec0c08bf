"""Find what checkpoints say: messages at any depth of any value, in all their versions, and every other text."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from langchain_core.messages import BaseMessage

from deltamem_agents.forgetting.packed import Extension, Opaque, fields_of, held_by, message_key
from deltamem_agents.forgetting.rows import CheckpointRows, Stored
from deltamem_agents.memory_cell import MEMORY_KEY
from deltamem_agents.messages import RECALLED_KEY
from deltamem_agents.working_memory import MAGIC

__all__ = [
    "TELLING",
    "Said",
    "Version",
    "digest_of",
    "leaves",
    "metadata_texts",
    "said_by",
    "spoken",
    "texts_of",
    "traces",
]

TELLING: Final = 24
"""Characters of an argument that is looked for; a shorter one, such as a file's name, may stand for anything."""

_UNSPOKEN: Final = {"type", MEMORY_KEY, RECALLED_KEY}
_START = "__start__"  # LangGraph's channel for a graph's input
_METADATA: Final = "metadata"


def digest_of(value: str | bytes) -> str:
    """Identify a text or bytes by the SHA-256."""
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return hashlib.sha256(data).hexdigest()


def texts_of(content: Any) -> list[str]:
    """Return the texts of a message's content: of its blocks, if it is a list."""
    if isinstance(content, str):
        return [content]
    blocks = content if isinstance(content, list) else []
    texts = [block.get("text") if isinstance(block, Mapping) else block for block in blocks]
    return [text for text in texts if isinstance(text, str)]


def said_by(content: Any) -> str:
    """Return what a content is compared by: its text, or all of it where it has none; empty if nothing is said."""
    return "".join(texts_of(content)) or (repr(content) if isinstance(content, list) and content else "")


def spoken(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield every text of a message's fields, with what it tells tools and what a tool's result holds beside its text.

    Names of types, models, reasons and tools are no texts of the message.
    """
    yield "".join(texts_of(fields.get("content")))
    yield from _beside(fields)
    yield from _told(fields)
    if fields.get("type") == "human" and fields.get("name"):
        yield fields["name"]


def traces(fields: Mapping[str, Any]) -> list[str]:
    """Return what is to be looked for when a message is gone: its text, and the longer ones beside it."""
    told = [text for text in _told(fields) if len(text) >= TELLING]
    # One word may be an id, or something else that is not the message's alone.
    prose = [text for text in _beside(fields) if len(text) >= TELLING and len(text.split()) > 1]
    return ["".join(texts_of(fields.get("content"))), *told, *prose]


def leaves(value: Any) -> Iterator[str]:
    """Yield every text and number of a value."""
    if isinstance(value, Extension):
        yield from leaves(held_by(value))
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
    elif value is not None and not isinstance(value, bool | bytes):
        yield str(value)


def metadata_texts(name: str, value: Any) -> list[str]:
    """Return what an entry of a checkpoint's metadata says, with a name that is data, not the name of a field."""
    return [*([] if name.isidentifier() else [name]), *leaves(value)]


def _told(fields: Mapping[str, Any]) -> Iterator[str]:
    calls = [*(fields.get("tool_calls") or ()), *(fields.get("invalid_tool_calls") or ())]
    yield from leaves([call["args"] for call in calls])


def _beside(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of blocks, of what a provider says beside the text, such as reasoning, and of an artifact."""
    content, artifact = fields.get("content"), fields.get("artifact")
    yield from leaves(_speaking(content if isinstance(content, list) else []))
    yield from leaves(_speaking(fields.get("additional_kwargs") or {}))
    metadata = _speaking(fields.get("response_metadata") or {})
    # What stands there by itself names a model, or why it stopped.
    yield from leaves([part for part in metadata.values() if isinstance(part, dict | list)])
    if isinstance(artifact, dict):
        artifact = {name: part for name, part in artifact.items() if name not in _UNSPOKEN}
    yield from leaves(artifact)


def _speaking(value: Any) -> Any:
    """Return a value without numbers, names of kinds of things, memories and reports of recalls."""
    if isinstance(value, dict):
        return {name: _speaking(part) for name, part in value.items() if name not in _UNSPOKEN}
    if isinstance(value, list | tuple):
        return [_speaking(part) for part in value]
    return value if isinstance(value, str | Extension) else None


@dataclass(frozen=True, eq=False)
class Version:
    """Hold a message as one checkpoint has it."""

    rows: CheckpointRows
    stored: Extension
    fields: Mapping[str, Any]

    @cached_property
    def message(self) -> BaseMessage:
        """Return the message as an object."""
        return self.rows.message(self.stored)


class Said:
    """Gather what checkpoints of one thread say.

    messages: every version of each message, the newest last, by id; by its bytes where it has none. texts: every other
    text and value of bytes, with the channels it is in, or "metadata". closed: what cannot be rewritten, by where it
    stands.
    """

    def __init__(self, rows: CheckpointRows, checkpoints: Iterable[Stored]) -> None:
        """Walk through values, inputs, and what tasks have written."""
        self._rows = rows
        self._known: set[bytes] = set()
        self._nameless: dict[str, list[Version]] = defaultdict(list)
        self.messages: dict[str, list[Version]] = {}
        self.texts: dict[str | bytes, set[str]] = defaultdict(set)
        self.closed: dict[str, list[str]] = defaultdict(list)
        for one in checkpoints:
            for channel, value in (*one.values.items(), *((write.channel, write.value) for write in one.writes)):
                self._walk(channel, value)
            for name, value in one.metadata.items():
                for text in metadata_texts(name, value):
                    self.texts[text].add(_METADATA)
        self._join()

    def inputs(self, channel: str) -> Iterator[bytes]:
        """Yield what was given to the graph: as messages that are no objects, to their channel, and as metadata."""
        for text, channels in self.texts.items():
            if channels & {channel, _START, _METADATA}:
                yield text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")

    def remaining(self, gone: Collection[str]) -> Iterator[bytes]:
        """Yield the stored bytes of every message that is not to be gone."""
        for name, versions in self.messages.items():
            if name not in gone:
                yield from (version.stored.data for version in versions)

    def _join(self) -> None:
        """Count what was said without an id as a version of the messages that it has become."""
        became = defaultdict(list)
        for name, versions in self.messages.items():
            for said in {said_by(version.fields["content"]) for version in versions} - {""}:
                became[said].append(name)
        for key, versions in self._nameless.items():
            names = became[said_by(versions[0].fields["content"])]
            for name in names:
                self.messages[name] = [*versions, *self.messages[name]]
            if not names:
                self.messages[key] = versions

    def _walk(self, channel: str, value: Any) -> None:
        if isinstance(value, Extension):
            self._object(channel, value)
        elif isinstance(value, dict):
            # Other keys are the names of fields.
            self._walk(channel, [key for key in value if isinstance(key, str) and not key.isidentifier()])
            self._walk(channel, list(value.values()))
        elif isinstance(value, list):
            for part in value:
                self._walk(channel, part)
        elif isinstance(value, Opaque):
            self.closed[f"the channel {channel!r}"].append(value.typed[1].decode("utf-8", "ignore"))
        elif isinstance(value, str) or (isinstance(value, bytes) and not value.startswith(MAGIC)):
            self.texts[value].add(channel)

    def _object(self, channel: str, value: Extension) -> None:
        if value.data in self._known:
            return
        fields = fields_of(value)
        if fields is None:
            self._walk(channel, held_by(value))
            return
        self._known.add(value.data)
        found = self.messages if fields.get("id") is not None else self._nameless
        found.setdefault(message_key(value, fields), []).append(Version(self._rows, value, fields))
