"""Find what is to be forgotten: records, and messages that only checkpoints hold."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from langchain_core.messages import BaseMessage
from sqlalchemy import Column, ColumnElement, Connection, Row, select

from backbone import ConfigError
from deltamem_agents.archive.dialects import chunks
from deltamem_agents.archive.items import below
from deltamem_agents.archive.logged import SUBJECT
from deltamem_agents.archive.records import Namespace, Record, Trust, namespace_key, original_id
from deltamem_agents.archive.tables import items, messages, records, threads
from deltamem_agents.archive.writes import whole_records
from deltamem_agents.forgetting.fingerprints import SHORTEST
from deltamem_agents.forgetting.said import TELLING, leaves
from deltamem_agents.policy import describe

__all__ = [
    "Target",
    "Wanted",
    "find_items",
    "find_records",
    "known_threads",
    "message_target",
    "require_own",
    "text_target",
]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Say what is to be forgotten; what is None asks for nothing, and all that is asked for must be true.

    ids: of records or messages. query: text that occurs, letter case aside. thread: what was said there. subject: whom
    records are about, by their tag subject:NAME. namespace: the namespace and those below it; None is the owner's own.
    Raises ConfigError if nothing is asked for, or if the namespace is not the owner's or one below it.
    """

    owner: Namespace
    ids: frozenset[str] | None = None
    query: str | None = None
    thread: str | None = None
    namespace: Namespace | None = None
    subject: str | None = None

    def __post_init__(self) -> None:
        if all(value is None for value in (self.ids, self.query, self.thread, self.namespace, self.subject)):
            raise ConfigError("say what to forget: ids, query, thread, namespace or subject")
        empty = [name for name in ("query", "thread", "subject") if getattr(self, name) == ""]
        if empty:
            raise ConfigError(f"{empty[0]} is empty, which would mean everything; leave it out, or give a text")
        if self.namespace is not None and self.namespace[: len(self.owner)] != self.owner:
            raise ConfigError(f"a memory of {self.owner!r} forgets there and below, got {self.namespace!r}")

    @property
    def everything(self) -> bool:
        """Tell whether whole threads are asked for, not some of their messages."""
        return self.ids is None and self.query is None and self.subject is None

    def says(self, text: str) -> bool:
        """Tell whether a text has what is looked for."""
        return self.query is None or self.query.casefold() in text.casefold()

    def wants(self, name: str, texts: Iterable[str]) -> bool:
        """Tell whether a message that is not in the record is asked for. texts: all that it says."""
        return self.subject is None and (self.ids is None or name in self.ids) and any(map(self.says, texts))

    def wants_text(self, text: str | bytes) -> bool:
        """Tell whether a text, or bytes that hold one, is asked for though it is no message's."""
        if self.query is None or self.ids is not None or self.subject is not None:
            return False
        if isinstance(text, str):
            return self.says(text)
        try:
            return self.says(text.decode())
        except UnicodeDecodeError:
            # A short word is in many bytes by chance.
            return len(self.query.encode()) >= SHORTEST and self.says(text.decode("utf-8", "ignore"))


@dataclass(frozen=True, slots=True)
class Target:
    """Show a policy what is to be erased: a record, an item of a store, or a message that only checkpoints hold.

    places: the messages it is, as (thread, id). parts: what is to be looked for afterwards instead of the text.
    """

    id: str
    text: str
    source: str
    trust: int
    tags: Sequence[str] = ()
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    namespace: Namespace = ()
    places: tuple[tuple[str, str], ...] = ()
    kind: Literal["record", "item", "message"] = "message"
    detached: bool = False
    expires: datetime | None = None
    parts: tuple[str, ...] = ()


def text_target(text: str | bytes, channels: Iterable[str], thread: str) -> Target:
    """Show a text of a state's channel as a record; LangGraph's own channels, such as of inputs, begin with __."""
    channel = min(channels, key=lambda name: (name.startswith("__"), name))
    shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
    return Target(channel, shown, "state", int(Trust.MEDIUM), places=((thread, channel),))


def message_target(name: str, message: BaseMessage, thread: str) -> Target:
    """Show a message that only checkpoints hold as a record."""
    said = describe(message)
    return Target(name, said.text, said.source, int(said.trust), places=((thread, name),))


def known_threads(connection: Connection, wanted: Wanted) -> tuple[set[str], set[str]]:
    """Return the threads that have run in the namespaces, and those of them that no other namespace knows."""
    here = _meant(threads.c.namespace, wanted)
    mine = select(threads.c.thread).where(here)
    others = select(threads.c.thread).where(~here, threads.c.thread.in_(mine))
    known = set(connection.execute(mine).scalars())
    return known, known - set(connection.execute(others).scalars())


def require_own(connection: Connection, wanted: Wanted) -> None:
    """Raise ConfigError for a thread that is known to other namespaces, and to none of the owner's."""
    known = select(threads.c.namespace).where(threads.c.thread == wanted.thread)
    others = connection.execute(known).first() is not None
    if others and connection.execute(known.where(below(threads.c.namespace, wanted.owner))).first() is None:
        raise ConfigError(f"thread {wanted.thread!r} belongs to other namespaces; a memory of theirs can forget it")


def find_records(connection: Connection, wanted: Wanted) -> list[Target]:
    """Return the records that are asked for, each with its other versions."""
    places: dict[str, list[tuple[str, str]]] = defaultdict(list)
    here = _meant(messages.c.namespace, wanted)
    said = select(messages).where(here)
    if wanted.thread is not None:
        said = said.where(
            messages.c.record.in_(select(messages.c.record).where(here, messages.c.thread == wanted.thread))
        )
    for row in connection.execute(said):
        places[row.record].append((row.thread, original_id(row.message_id, row.hash)))
    chosen = select(records).where(_meant(records.c.namespace, wanted))
    parts = [chosen]
    if wanted.ids is not None:
        named = {record for record, told in places.items() if wanted.ids & {name for _, name in told}}
        parts = [chosen.where(records.c.id.in_(ids)) for ids in chunks(sorted(wanted.ids | named))]
    found: dict[str, Record] = {}
    for fields in (row for part in parts for row in connection.execute(part).mappings()):
        record = Record.from_row(fields)
        if _is_wanted(record, places[record.id], wanted):
            found[record.id] = record
    for record in [one for one in found.values() if one.supersedes or one.superseded_by]:
        others = whole_records(connection, namespace_key(record.namespace), [record.id]) - found.keys()
        rows = connection.execute(select(records).where(records.c.id.in_(others))).mappings()
        found |= {row["id"]: Record.from_row(row) for row in rows}
    return [_target(record, places[record.id], wanted.thread) for record in found.values()]


def find_items(connection: Connection, wanted: Wanted) -> list[Target]:
    """Return a store's items that go with a whole namespace, or say the query; the text of one is its value as JSON."""
    whole = wanted.namespace is not None and wanted.everything
    if wanted.thread is not None or not (whole or wanted.query is not None):
        return []
    found = connection.execute(select(items).where(_meant(items.c.namespace, wanted)))
    return [
        Target(
            row.id,
            row.value,
            "item",
            int(Trust.MEDIUM),
            created=row.created,
            namespace=tuple(json.loads(row.namespace)),
            kind="item",
            parts=(
                row.value,
                *(text for text in leaves(json.loads(row.value)) if len(text) >= TELLING),
                *([row.key] if wanted.wants_text(row.key) else []),
            ),
        )
        for row in found
        if whole or any(map(wanted.wants_text, _told(row)))
    ]


def _told(row: Row[Any]) -> list[str]:
    """Return what an item says: its key, the names in its value, and every text."""
    value = json.loads(row.value)
    return [row.key, json.dumps(value, ensure_ascii=False), *leaves(value)]


def _meant(namespace: Column[str], wanted: Wanted) -> ColumnElement[bool]:
    """Return the SQL for rows of the namespaces that are meant."""
    return namespace == namespace_key(wanted.owner) if wanted.namespace is None else below(namespace, wanted.namespace)


def _is_wanted(record: Record, places: Sequence[tuple[str, str]], wanted: Wanted) -> bool:
    threads = {record.thread, *(thread for thread, _ in places)}
    return (
        wanted.says(record.text)
        and (wanted.thread is None or wanted.thread in threads)
        and (wanted.subject is None or SUBJECT + wanted.subject in record.tags)
    )


def _target(record: Record, places: Sequence[tuple[str, str]], thread: str | None) -> Target:
    """Describe a record; one that other threads have said too is only detached from the thread that is asked for."""
    mine = tuple((said, name) for said, name in places if thread in {None, said})
    return Target(
        record.id,
        record.text,
        record.source,
        int(record.trust),
        record.tags,
        record.created,
        record.namespace,
        mine,
        "record",
        detached=len(mine) < len(places),
    )
