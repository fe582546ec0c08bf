"""Write an archive as JSON lines and read it back: every version, message, item and thread, with its ids and times."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, Select, Table, case, func, select

from deltamem_agents.archive.database import read_snapshot
from deltamem_agents.archive.dialects import insert_into
from deltamem_agents.archive.entries import Entry, enter, last_position, locked_space
from deltamem_agents.archive.errors import RecordInvalidError
from deltamem_agents.archive.line_rules import LineRules
from deltamem_agents.archive.logged import by_program
from deltamem_agents.archive.postings import NO_POSITION
from deltamem_agents.archive.records import Namespace, Trust, content_hash, namespace_key, require_fitting, tags_of_both
from deltamem_agents.archive.tables import (
    UtcTime,
    from_microseconds,
    items,
    messages,
    records,
    threads,
    to_microseconds,
)
from deltamem_agents.archive.threads import note_said
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.audit import AuditEvent, append_all
from deltamem_agents.audit.log import namespace_of
from deltamem_agents.policy import MemoryPolicy, PolicyChain

__all__ = ["Imported", "export_lines", "import_lines"]

_PAGE = 500
_TABLES = {"record": records, "message": messages, "item": items, "thread": threads}
# What is given anew: numbers inside one database, and what follows from the text.
_LOCAL = {"space", "position", "hash"}
_GONE = "gone"


@dataclass(frozen=True, slots=True)
class Imported:
    """Count what was read: new rows by kind, rows that were there already, and rows that a policy has left out."""

    records: int
    messages: int
    items: int
    threads: int
    known: int
    refused: int


def export_lines(
    engine: Engine, namespace: Namespace | None = None, counts: dict[str, int] | None = None
) -> Iterator[str]:
    """Yield one JSON object for each version, message, item and thread, of one namespace or of all, in a fixed order.

    Times are microseconds since 1970, as they are stored. What is written meanwhile is left out. counts: gets, before
    the first line, how many there are of each, by the names of `Imported`.
    """
    with read_snapshot(engine) as connection:
        if counts is not None:
            counts |= {f"{kind}s": _count(connection, table, namespace) for kind, table in _TABLES.items()}
        for kind, table in _TABLES.items():
            order = [records.c.position] if kind == "record" else list(table.primary_key.columns)
            chosen = (_messages() if kind == "message" else select(table)).order_by(table.c.namespace, *order)
            if namespace is not None:
                chosen = chosen.where(table.c.namespace == namespace_key(namespace))
            rows = connection.execute(chosen, execution_options={"yield_per": _PAGE}).mappings()
            yield from (_line(kind, row) for row in rows)


def import_lines(engine: Engine, lines: Iterable[str], *, policy: PolicyChain | MemoryPolicy | None = None) -> Imported:
    """Store what `export_lines` has written, all or none; what is there already stays as it is.

    A record whose text is there under another id is that one from then on. policy: who is asked about each version, as
    of the source that it names, and about each item, as of the source "import"; what it refuses is left out, with the
    messages that it was. None takes everything as it is. Raises RecordInvalidError for a line that is no such object,
    with its number.
    """
    counts = dict.fromkeys((*_TABLES, "known", "refused"), 0)
    spaces: Counter[str] = Counter()
    told: dict[str, list[AuditEvent]] = defaultdict(list)
    moved: dict[str, str] = {}
    rules = LineRules(policy)
    with engine.begin() as connection:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                fields = dict(json.loads(line))
                kind, gone = _checked(fields)
                admitted, events = rules.admit(kind, fields)
                kind = _import_line(connection, kind, fields, gone, moved) if admitted else "refused"
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                raise RecordInvalidError(f"line {number} is no record, message, item or thread: {error!r}") from error
            stored = kind not in {"known", "refused"}
            if stored:
                rules.note(kind, fields)
            counts[kind] += 1
            spaces[fields["namespace"]] += stored
            told[fields["namespace"]] += [] if kind == "known" else events
        for old, here in moved.items():
            connection.execute(records.update().where(records.c.superseded_by == old).values(superseded_by=here))
        rules.relink(connection)
        for namespace, number in sorted(spaces.items()):
            done = [by_program("write", "imported from a file", detail={"rows": number})] if number else []
            append_all(connection, namespace_of(namespace), [*done, *told[namespace]])
        note_said(connection)
    return Imported(**{name if name in {"known", "refused"} else f"{name}s": count for name, count in counts.items()})


def _count(connection: Connection, table: Table, namespace: Namespace | None) -> int:
    chosen = select(func.count()).select_from(table)
    if namespace is not None:
        chosen = chosen.where(table.c.namespace == namespace_key(namespace))
    return connection.execute(chosen).scalar_one()


def _messages() -> Select[Any]:
    """Choose messages; the digest of one whose record is gone, `gone`, does not follow from another line."""
    gone = case((records.c.id.is_(None), messages.c.hash)).label(_GONE)
    return select(messages, gone).outerjoin(records, records.c.id == messages.c.record)


def _line(kind: str, row: RowMapping) -> str:
    fields: dict[str, Any] = {"kind": kind}
    for name, value in row.items():
        if name not in _LOCAL and not (name == _GONE and value is None):
            fields[name] = to_microseconds(value) if isinstance(value, datetime) else value
    return json.dumps(fields, ensure_ascii=False)


def _checked(fields: dict[str, Any]) -> tuple[str, str | None]:
    """Take an object's kind, and the digest of a text that is gone, out of it; raises if the rest is no row."""
    kind: str = fields.pop("kind")
    table = _TABLES[kind]
    gone = fields.pop(_GONE, None) if kind == "message" else None
    wanted = set(table.c.keys()) - _LOCAL
    if set(fields) != wanted:
        raise KeyError(f"expected the fields {sorted(wanted)}")
    for name in wanted:
        require_fitting(table.c[name], fields[name])
    key = namespace_key(tuple(json.loads(fields["namespace"])))
    if key != fields["namespace"]:
        raise ValueError(f"{fields['namespace']!r} is no namespace")
    return kind, gone


def _import_line(
    connection: Connection, kind: str, fields: dict[str, Any], gone: str | None, moved: dict[str, str]
) -> str:
    """Store one object; return its kind, or "known" if it was there already.

    moved: the ids of records whose texts are there already, and the ids that those have; it is added to.
    """
    table, key = _TABLES[kind], fields["namespace"]
    times = {column.name for column in table.c if isinstance(column.type, UtcTime)}
    row: dict[str, Any] = {
        name: from_microseconds(value) if name in times and value is not None else value
        for name, value in fields.items()
    }
    if kind == "message":
        row["record"] = moved.get(row["record"], row["record"])
        text = select(records.c.hash).where(records.c.id == row["record"], records.c.namespace == key)
        row["hash"] = gone or connection.execute(text).scalar_one_or_none()
        if row["hash"] is None:
            raise ValueError(f"record {row['record']!r} is not there")
    if kind in {"message", "thread"}:
        return kind if _inserted(connection, kind, row) else "known"
    space = locked_space(connection, kind, key)
    row |= {"space": space.id, "position": space.next_position}
    entry = _record(connection, row) if kind == "record" else _item(row)
    if not _inserted(connection, kind, row):
        if kind == "record":
            moved |= _moved(connection, row)
        return "known"
    enter(connection, space.id, [entry])
    return kind


def _inserted(connection: Connection, kind: str, row: Mapping[str, Any]) -> bool:
    table = _TABLES[kind]
    insert = insert_into(connection, table).on_conflict_do_nothing().values(dict(row))
    return connection.execute(insert.returning(table.c.namespace)).one_or_none() is not None


def _moved(connection: Connection, row: Mapping[str, Any]) -> dict[str, str]:
    """Return under which other id a record's text is there, by the record's own id; nothing if it has the same.

    The one that is there gets the tags of both.
    """
    same = (records.c.namespace == row["namespace"]) & (records.c.hash == row["hash"])
    held = select(records.c.id, records.c.tags).where(same, records.c.superseded_by.is_(None))
    here = select(records.c.id).where(records.c.id == row["id"])
    if connection.execute(here).one_or_none() is not None:
        return {}
    kept = connection.execute(held).one()
    tags = tags_of_both(kept.tags, row["tags"])
    connection.execute(records.update().where(records.c.id == kept.id).values(tags=tags))
    return {row["id"]: kept.id}


def _record(connection: Connection, row: dict[str, Any]) -> Entry:
    named = {name: row[name] for name in ("text", "thread", "message_id", "role", "source")}
    NewRecord(**named, trust=Trust(row["trust"]), tags=tuple(row["tags"]))  # refuses what cannot be stored
    row["hash"] = content_hash(row["text"])
    thread, position = row["thread"], row["position"]
    previous = NO_POSITION if thread is None else last_position(connection, row["space"], thread, below=position)
    return Entry(row["id"], position, row["text"], previous)


def _item(row: dict[str, Any]) -> Entry:
    value, texts = json.loads(row["value"]), json.loads(row["texts"])
    if not isinstance(value, dict) or not isinstance(texts, list):
        raise ValueError("the value of an item is an object, and its texts are a list")
    return Entry(row["id"], row["position"], "\n".join(texts), vectors=len(texts))
