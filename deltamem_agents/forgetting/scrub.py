"""Take messages out of whatever a checkpoint holds: lists of them, states inside tasks, inputs as they were given."""

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from deltamem_agents.forgetting.packed import Extension, contents, fields_of, repacked, with_fields
from deltamem_agents.memory_cell import MEMORY_KEY

__all__ = ["Scrubber"]

_GONE = object()
_SHORTEST = 8


@dataclass
class Scrubber:
    """Remove messages by id, and inputs without an id by their text.

    ids, texts: of the messages that go. carried: for replies that carry the working memory, what they carry instead;
    None takes it off.
    """

    ids: Collection[str]
    texts: Collection[str]
    carried: Mapping[str, bytes | None] = field(default_factory=dict)
    _known: dict[bytes, Any] = field(default_factory=dict)

    def __call__(self, value: Any) -> Any:
        """Return the value without the messages; None where nothing is left of it."""
        cleaned = self._clean(value)
        return None if cleaned is _GONE else cleaned

    def _clean(self, value: Any) -> Any:
        if isinstance(value, Extension):
            return self._extension(value)
        if isinstance(value, list):
            return [item for item in map(self._clean, value) if item is not _GONE]
        if isinstance(value, dict):
            if self._names(value):
                return _GONE
            items = {name: self._clean(item) for name, item in value.items()}
            return {name: None if item is _GONE else item for name, item in items.items()}
        # A short word may stand anywhere for anything.
        said = isinstance(value, str) and len(value) >= _SHORTEST and value in self.texts
        return "" if said else value

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
        return value if cleaned is _GONE or cleaned == inner else repacked(value, cleaned)

    def _names(self, fields: Mapping[Any, Any]) -> bool:
        """Tell whether these are the fields of a message that goes."""
        if "content" not in fields:
            return False
        identity = fields.get("id")
        if identity is None:
            return isinstance(fields["content"], str) and fields["content"] in self.texts
        return identity in self.ids

    def _recarried(self, value: Extension, fields: Mapping[str, Any]) -> Extension:
        if fields.get("id") not in self.carried:
            return value
        metadata = {name: item for name, item in fields["response_metadata"].items() if name != MEMORY_KEY}
        memory = self.carried[fields["id"]]
        if memory is not None:
            metadata[MEMORY_KEY] = base64.b64encode(memory).decode("ascii")
        return with_fields(value, {**fields, "response_metadata": metadata})
