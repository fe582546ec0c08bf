"""Take messages out of whatever a checkpoint holds: lists of them, states inside tasks, inputs as they were given."""

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from deltamem_agents.forgetting.fingerprints import SHORTEST
from deltamem_agents.forgetting.packed import Extension, fields_of, held_by, message_key, with_fields, with_held
from deltamem_agents.forgetting.said import TELLING, digest_of, metadata_texts, said_by, texts_of
from deltamem_agents.memory_cell import MEMORY_KEY

__all__ = ["Scrubber"]

_GONE = object()


@dataclass
class Scrubber:
    """Remove messages by id, inputs without an id by what they say, and tasks by the tool call that they carry out.

    ids: of the messages that go. messages: those of them that are known. digests: SHA-256 of other texts that go, which
    leave nothing in their place but an empty text. quotable: what messages that go say, which no metadata is to quote.
    carried: for replies that carry the working memory, what they carry instead; None takes it off.
    """

    ids: Collection[str]
    messages: Sequence[BaseMessage]
    digests: Collection[str] = ()
    quotable: Collection[str] = ()
    carried: Mapping[str, bytes | None] = field(default_factory=dict)
    _known: dict[bytes, Any] = field(default_factory=dict, init=False)
    _quoting: dict[str, bool] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._said = {said_by(message.content) for message in self.messages} - {""}
        texts = {text for message in self.messages for text in (message.text, *texts_of(message.content))}
        # A short word may stand anywhere for anything.
        self._texts = {text for text in texts if len(_encoded(text)) >= SHORTEST}
        replies = [message for message in self.messages if isinstance(message, AIMessage)]
        self._calls = {call["id"] for reply in replies for call in reply.tool_calls} - {None}
        self._quotable = [text for text in map(_encoded, self.quotable) if len(text) >= SHORTEST]
        self._together = b"\0".join(self._quotable)

    def __call__(self, value: Any) -> Any:
        """Return the value without the messages; None where nothing is left of it."""
        cleaned = self._clean(value)
        return None if cleaned is _GONE else cleaned

    def unsaid(self, metadata: Mapping[str, Any]) -> list[str]:
        """Return the names of a checkpoint's metadata that go: they say, or quote, what goes."""
        return [
            name for name, value in metadata.items()
            if any(map(self._quotes, metadata_texts(name, value)))
        ]  # fmt: skip

    def _quotes(self, text: str) -> bool:
        """Tell whether a text of metadata goes; part of a message is what a thread's title may be."""
        if text not in self._quoting:
            data = _encoded(text)
            windows = (data[at : at + TELLING] for at in range(len(data) - TELLING + 1))
            quoted = any(whole in data for whole in self._quotable) or any(part in self._together for part in windows)
            self._quoting[text] = quoted or self._goes(text)
        return self._quoting[text]

    def _clean(self, value: Any) -> Any:
        if isinstance(value, Extension):
            return self._extension(value)
        if isinstance(value, list):
            return self._list(value)
        if isinstance(value, dict):
            if self._names(value) or self._calls_for(value):
                return _GONE
            items = {name: self._clean(item) for name, item in value.items() if not self._is_key(name)}
            return {name: None if item is _GONE else item for name, item in items.items()}
        return type(value)() if isinstance(value, str | bytes) and self._goes(value) else value

    def _goes(self, value: str | bytes) -> bool:
        return value in self._texts or (bool(self.digests) and digest_of(value) in self.digests)

    def _is_key(self, name: Any) -> bool:
        """Tell whether a key goes with its value: one that is data, not the name of a field."""
        return isinstance(name, str) and not name.isidentifier() and self._goes(name)

    def _list(self, value: list[Any]) -> Any:
        if _is_content(value) and said_by(value) in self._said:
            return []
        kept = [item for item in map(self._clean, value) if item is not _GONE]
        return _GONE if not kept and any(map(self._calls_for, value)) else kept

    def _extension(self, value: Extension) -> Any:
        if value.data not in self._known:
            self._known[value.data] = self._cleaned(value)
        return self._known[value.data]

    def _cleaned(self, value: Extension) -> Any:
        fields = fields_of(value)
        if fields is not None:
            if self._names(fields) or message_key(value, fields) in self.ids:
                return _GONE
            # A message that stays is left as it is, whatever it quotes: who wants that gone names it as well.
            return self._recarried(value, fields)
        inner = held_by(value)
        cleaned = self._clean(inner)
        if cleaned is _GONE or cleaned == inner:
            return _GONE if cleaned is _GONE else value
        made = with_held(value, cleaned)
        return _GONE if made is None else made

    def _names(self, fields: Mapping[Any, Any]) -> bool:
        """Tell whether these are the fields of a message that goes."""
        if "content" not in fields:
            return False
        identity = fields.get("id")
        if identity is None:
            return said_by(fields["content"]) in self._said
        return identity in self.ids

    def _calls_for(self, value: Any) -> bool:
        """Tell whether this is a tool call of a message that goes."""
        named = value.get("id") if isinstance(value, dict) and {"name", "args"} <= value.keys() else None
        return isinstance(named, str) and named in self._calls

    def _recarried(self, value: Extension, fields: Mapping[str, Any]) -> Extension:
        if fields.get("id") not in self.carried:
            return value
        metadata = {name: item for name, item in fields["response_metadata"].items() if name != MEMORY_KEY}
        memory = self.carried[fields["id"]]
        if memory is not None:
            metadata[MEMORY_KEY] = base64.b64encode(memory).decode("ascii")
        return with_fields(value, {**fields, "response_metadata": metadata})


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _is_content(value: Sequence[Any]) -> bool:
    return bool(value) and all(isinstance(block, dict) and "type" in block for block in value)
