"""Take messages out of whatever a checkpoint holds: lists of them, states inside tasks, inputs as they were given."""

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from deltamem_agents.forgetting.fingerprints import SHORTEST
from deltamem_agents.forgetting.packed import Extension, contents, fields_of, repacked, with_fields
from deltamem_agents.memory_cell import MEMORY_KEY

__all__ = ["Scrubber"]

_GONE = object()
_POSITIONAL = 1  # LangGraph's number of an extension that holds module, name and arguments


@dataclass
class Scrubber:
    """Remove messages by id, inputs without an id by what they say, and tasks by the tool call that they carry out.

    ids: of the messages that go. messages: those of them that are known. carried: for replies that carry the working
    memory, what they carry instead; None takes it off.
    """

    ids: Collection[str]
    messages: Sequence[BaseMessage]
    carried: Mapping[str, bytes | None] = field(default_factory=dict)
    _known: dict[bytes, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._said = {_said(message.content) for message in self.messages} - {""}
        texts = {text for message in self.messages for text in (message.text, *_texts(message.content))}
        # A short word may stand anywhere for anything.
        self._texts = {text for text in texts if len(text.encode("utf-8", "surrogatepass")) >= SHORTEST}
        replies = [message for message in self.messages if isinstance(message, AIMessage)]
        self._calls = {call["id"] for reply in replies for call in reply.tool_calls} - {None}

    def __call__(self, value: Any) -> Any:
        """Return the value without the messages; None where nothing is left of it."""
        cleaned = self._clean(value)
        return None if cleaned is _GONE else cleaned

    def _clean(self, value: Any) -> Any:
        if isinstance(value, Extension):
            return self._extension(value)
        if isinstance(value, list):
            return self._list(value)
        if isinstance(value, dict):
            if self._names(value) or self._calls_for(value):
                return _GONE
            items = {name: self._clean(item) for name, item in value.items()}
            return {name: None if item is _GONE else item for name, item in items.items()}
        return "" if isinstance(value, str) and value in self._texts else value

    def _list(self, value: list[Any]) -> Any:
        if _is_content(value) and _said(value) in self._said:
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
            if self._names(fields):
                return _GONE
            # A message that stays is left as it is, whatever it quotes: who wants that gone names it as well.
            return self._recarried(value, fields)
        inner = contents(value)
        cleaned = self._clean(inner)
        if value.code == _POSITIONAL and len(cleaned[-1]) < len(inner[-1]):
            return _GONE  # a task, which would be begun with fewer arguments
        return value if cleaned is _GONE or cleaned == inner else repacked(value, cleaned)

    def _names(self, fields: Mapping[Any, Any]) -> bool:
        """Tell whether these are the fields of a message that goes."""
        if "content" not in fields:
            return False
        identity = fields.get("id")
        if identity is None:
            return _said(fields["content"]) in self._said
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


def _is_content(value: Sequence[Any]) -> bool:
    return bool(value) and all(isinstance(block, dict) and "type" in block for block in value)


def _texts(content: Any) -> list[str]:
    """Return the texts of a message's content: of its blocks, if it is a list."""
    if isinstance(content, str):
        return [content]
    blocks = content if isinstance(content, list) else []
    texts = [block.get("text") if isinstance(block, Mapping) else block for block in blocks]
    return [text for text in texts if isinstance(text, str)]


def _said(content: Any) -> str:
    """Return what a content is compared by: its text, or all of it where it has none; empty if nothing is said."""
    return "".join(_texts(content)) or (repr(content) if isinstance(content, list) and content else "")
