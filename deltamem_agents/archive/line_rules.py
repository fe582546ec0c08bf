"""Ask policies about the lines of a file that is imported."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from langgraph.store.base import get_text_at_path
from sqlalchemy import Connection

from deltamem_agents.archive.records import NewRecord, Trust, content_hash
from deltamem_agents.archive.rules import Rules
from deltamem_agents.archive.tables import from_microseconds, records, to_microseconds
from deltamem_agents.audit import AuditEvent
from deltamem_agents.audit.log import namespace_of
from deltamem_agents.policy import MemoryPolicy, PolicyChain

__all__ = ["LineRules"]

_SOURCE = "import"
_LINKS = ("supersedes", "superseded_by")


class LineRules:
    """Let lines in as the policies say, and remember which records they refuse."""

    def __init__(self, policy: PolicyChain | MemoryPolicy | None) -> None:
        self._rules = Rules()
        self._asks = bool(self._rules.add(policy).policies)
        # Of versions that are refused, and of those that are new: the one before and the one after.
        self._refused: dict[str, tuple[str | None, str | None]] = {}
        self._links: dict[str, tuple[str | None, str | None]] = {}

    def admit(self, kind: str, fields: dict[str, Any]) -> tuple[bool, list[AuditEvent]]:
        """Say whether a line comes in, and what the log is to say of it; its fields are changed as the policies say.

        A message comes in if its record does. What is not text of its own, a thread, always does.
        """
        if not self._asks or kind == "thread":
            return True, []
        if kind == "message":
            return fields["record"] not in self._refused, []
        return self._record(fields) if kind == "record" else self._item(fields)

    def note(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Remember a line that was new to the archive; only what is new is changed by `relink`."""
        links = (fields["supersedes"], fields["superseded_by"]) if kind == "record" and self._asks else (None, None)
        if any(links):
            self._links[fields["id"]] = links

    def relink(self, connection: Connection) -> None:
        """Let the versions of a record that came in follow one another where some between them are refused."""
        for record, links in self._links.items():
            changed = {name: self._beyond(link, at) for at, (name, link) in enumerate(zip(_LINKS, links, strict=True))}
            values = {name: link for name, link in changed.items() if link is not None}
            if values:
                connection.execute(records.update().where(records.c.id == record).values(values))

    def _beyond(self, link: str | None, side: int) -> str | None:
        """Return the next version on a side that came in; None if that is the linked one, or there is none."""
        seen = set[str]()
        while link in self._refused and link not in seen:
            seen.add(link)
            link = self._refused[link][side]
        return link if seen and link not in seen else None

    def _record(self, fields: dict[str, Any]) -> tuple[bool, list[AuditEvent]]:
        named = {name: fields[name] for name in ("text", "thread", "message_id", "role", "source")}
        created = from_microseconds(fields["created"])
        new = NewRecord(**named, trust=Trust(fields["trust"]), tags=tuple(fields["tags"]), created=created)
        kept, told = self._rules.record(namespace_of(fields["namespace"]), new)
        if kept is None:
            self._refused[fields["id"]] = fields["supersedes"], fields["superseded_by"]
            return False, told
        fields |= {"text": kept.text, "trust": int(kept.trust), "tags": list(kept.tags)}
        fields["expires"] = _sooner(fields["expires"], kept.ttl)
        facts = {"record_id": fields["id"], "record_digest": content_hash(kept.text), "thread": kept.thread}
        return True, [event.model_copy(update=facts) for event in told]

    def _item(self, fields: dict[str, Any]) -> tuple[bool, list[AuditEvent]]:
        value, texts = json.loads(fields["value"]), json.loads(fields["texts"])
        if not isinstance(value, dict):
            raise TypeError("the value of an item is an object")
        left, ttl, told = self._rules.item(namespace_of(fields["namespace"]), fields["key"], value, _SOURCE)
        if left is None:
            return False, told
        whole = get_text_at_path(left, "$")
        # What is searched follows from the value; a file may have redacted only one of them, or changed it.
        follows = set(texts) <= {*whole, *_strings(left)}
        fields |= {"value": json.dumps(left), "texts": json.dumps(texts if follows else whole)}
        fields["expires"] = _sooner(fields["expires"], ttl)
        if ttl is not None:
            fields["ttl_minutes"] = None  # reading does not begin it anew
        facts = {"record_id": fields["id"], "record_digest": content_hash(fields["value"])}
        return True, [event.model_copy(update=facts) for event in told]


def _sooner(expires: int | None, ttl: timedelta | None) -> int | None:
    """Return the earlier of two ends, in microseconds: one that is given, and one that is counted from now."""
    ends = [expires, None if ttl is None else to_microseconds(datetime.now(UTC) + ttl)]
    return min((end for end in ends if end is not None), default=None)


def _strings(value: Any) -> list[str]:
    """Return what fields of a value are searched as, at every depth."""
    if isinstance(value, dict | list):
        return [text for one in (value.values() if isinstance(value, dict) else value) for text in _strings(one)]
    return [] if value is None else [str(value)]
