"""Keep the items of a LangGraph store in SQL: values by namespace and key, each write a new entry of the indexes."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from langchain_core.utils.uuid import uuid7
from langgraph.store.base import GetOp, Item, ListNamespacesOp, MatchCondition, PutOp, get_text_at_path
from sqlalchemy import ColumnElement, Connection, Engine, Row, RowMapping, and_, func, or_, select

from deltamem_agents.archive.database import READ_ONLY, empty_log
from deltamem_agents.archive.dialects import chunks
from deltamem_agents.archive.entries import Entry, enter, leave, lock_spaces, locked_space
from deltamem_agents.archive.errors import RecordInvalidError
from deltamem_agents.archive.logged import by_program, log_items
from deltamem_agents.archive.records import Namespace, Record, Trust, content_hash, namespace_key, require_storable
from deltamem_agents.archive.rules import Rules, refuse
from deltamem_agents.archive.tables import items, spaces
from deltamem_agents.audit import AuditEvent

__all__ = ["alive", "as_record", "below", "get", "item_of", "list_namespaces", "put_all", "refresh", "remove_where"]

MAX_KEY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class _Written:
    """A value as it is stored: JSON, and the texts in it that are searched."""

    value: str
    texts: list[str]


def alive(now: datetime) -> ColumnElement[bool]:
    """Return the SQL for items that have not expired."""
    return or_(items.c.expires.is_(None), items.c.expires > now)


def below(column: Any, prefix: Namespace) -> ColumnElement[bool]:
    """Return the SQL for namespaces that begin with these labels; the one place where a prefix is compared.

    Whole labels are compared, character by character: no wildcard and no separator can be smuggled in.
    """
    if not prefix:
        return and_(True)
    key = namespace_key(prefix)
    start = f"{key[:-1]},"
    return or_(column == key, func.substr(column, 1, len(start)) == start)


def get(connection: Connection, op: GetOp, now: datetime) -> Item | None:
    """Return an item, or None if the namespace does not hold it."""
    row = connection.execute(select(items).where(_named(op.namespace, [op.key]), alive(now))).mappings().one_or_none()
    return None if row is None else Item(**item_of(row))


def item_of(row: RowMapping) -> dict[str, Any]:
    """Return the fields of a LangGraph item."""
    return {
        "namespace": tuple(json.loads(row["namespace"])),
        "key": row["key"],
        "value": json.loads(row["value"]),
        "created_at": row["created"],
        "updated_at": row["updated"],
    }


def as_record(row: RowMapping) -> Record:
    """Return an item as the policies that are asked about records see it: its value as text, its source `item`."""
    facts: dict[str, Any] = {"role": "item", "source": "item", "trust": Trust.MEDIUM, "tags": (), "version": 1}
    facts |= {
        "namespace": tuple(json.loads(row["namespace"])),
        "text": row["value"],
        "hash": content_hash(row["value"]),
    }
    told = {name: row[name] for name in ("id", "created", "expires")}
    return Record(**{**dict.fromkeys(Record.__slots__), **facts, **told})


def refresh(engine: Engine, names: Sequence[tuple[Namespace, str]], now: datetime) -> None:
    """Let those of these items that have a time to live begin it anew."""
    found = select(items.c.id, items.c.space, items.c.ttl_minutes).where(alive(now), items.c.ttl_minutes.is_not(None))
    by_namespace: dict[Namespace, list[str]] = defaultdict(list)
    for namespace, key in names:
        by_namespace[namespace].append(key)
    rows: list[Row[Any]] = []
    with engine.connect().execution_options(**READ_ONLY) as connection:
        for namespace, keys in by_namespace.items():
            for some in chunks(keys):
                rows += connection.execute(found.where(_named(namespace, some)))
    if not rows:
        return
    with engine.begin() as connection:
        lock_spaces(connection, {row.space for row in rows})  # or two readers would wait for each other's items
        for row in rows:
            expires = now + timedelta(minutes=row.ttl_minutes)
            connection.execute(items.update().where(items.c.id == row.id).values(expires=expires))


def put_all(engine: Engine, ops: Iterable[PutOp], fields: Sequence[str], now: datetime, rules: Rules) -> None:
    """Store, replace or delete items, all or none; raises PolicyRefusedError for one that a policy does not let in."""
    # In the order in which `lock_spaces` locks namespaces.
    decided = [(op, *_ruled(op, rules)) for op in sorted(ops, key=lambda op: namespace_key(op.namespace))]
    refused = [(op.namespace, event) for op, left, _, events in decided if left is None for event in events]
    if refused:
        refuse(engine, refused)
    with engine.begin() as connection:
        for _, left, limit, events in decided:
            if left is not None:
                _put(connection, left, fields, now, limit, events)
    if any(op.value is None for op, *_ in decided):
        empty_log(engine)


def _ruled(op: PutOp, rules: Rules) -> tuple[PutOp | None, timedelta | None, list[AuditEvent]]:
    """Return an operation as policies let it through, None if they refuse it, their limit, and what the log says."""
    if op.value is None:
        return op, None, [by_program("forget", "deleted")]
    if not rules.chains(op.namespace):
        return op, None, [by_program("write", "stored as an item")]
    kept = _json(op.key, op.value)
    try:
        left, limit, events = rules.item(op.namespace, op.key, json.loads(kept))
    except RecursionError as error:
        raise RecordInvalidError(f"the value of {op.key!r} is nested too deeply for policies to be asked") from error
    return (None if left is None else op._replace(value=left)), limit, events


def _put(
    connection: Connection,
    op: PutOp,
    fields: Sequence[str],
    now: datetime,
    limit: timedelta | None,
    events: Sequence[AuditEvent],
) -> None:
    """Store, replace or delete one item, and log the events about it. limit: how long policies let it live at most."""
    namespace = namespace_key(op.namespace)
    this = _named(op.namespace, [op.key])
    if op.value is None:
        remove_where(connection, this, *events)
        return
    written = _written(op.key, op.value, fields if op.index is None else op.index or ())
    space = locked_space(connection, "item", namespace)
    old = connection.execute(items.delete().where(this).returning(items)).mappings().one_or_none()
    created = now
    if old is not None:
        leave(connection, space.id, [_entry(dict(old))], keep_space=True)
        created = old["created"] if old["expires"] is None or old["expires"] > now else now
    lives = [one for one in (limit, None if op.ttl is None else timedelta(minutes=op.ttl)) if one is not None]
    row = {
        "id": uuid7().hex,
        "namespace": namespace,
        "space": space.id,
        "position": space.next_position,
        "key": op.key,
        "value": written.value,
        "texts": json.dumps(written.texts),
        "created": created,
        "updated": now,
        "ttl_minutes": op.ttl if limit is None else None,  # reading does not put off a policy's limit
        "expires": now + min(lives) if lives else None,
    }
    connection.execute(items.insert().values(row))
    enter(connection, space.id, [_entry(row)])
    for event in events:
        log_items(connection, event, [row])


def remove_where(connection: Connection, chosen: ColumnElement[bool], logged: AuditEvent | None = None) -> int:
    """Delete the chosen items; return how many there were.

    logged: what the audit log says of each; None where the caller says it.
    """
    owners = connection.execute(select(items.c.space).where(chosen).distinct()).scalars().all()
    if not owners:
        return 0
    lock_spaces(connection, owners)
    # Only there: another writer may have put such an item elsewhere since.
    gone = connection.execute(items.delete().where(chosen, items.c.space.in_(owners)).returning(items)).mappings().all()
    for space in owners:
        leave(connection, space, [_entry(dict(row)) for row in gone if row["space"] == space])
    if logged is not None:
        log_items(connection, logged, [dict(row) for row in gone])
    return len(gone)


def list_namespaces(connection: Connection, op: ListNamespacesOp, now: datetime) -> list[Namespace]:
    """Return the namespaces that hold an item, in order."""
    held = select(items.c.id).where(items.c.space == spaces.c.id, alive(now)).exists()
    keys = connection.execute(select(spaces.c.namespace).where(spaces.c.kind == "item", held)).scalars()
    found = {tuple(json.loads(key)) for key in keys}
    chosen = {name for name in found if all(_matches(condition, name) for condition in op.match_conditions or ())}
    cut = sorted({name[: op.max_depth] for name in chosen})
    return cut[op.offset : op.offset + op.limit]


def _named(namespace: Namespace, keys: Sequence[str]) -> ColumnElement[bool]:
    """Return the SQL for items of a namespace by their keys; through its space, since that is what has an index."""
    space = select(spaces.c.id).where(spaces.c.kind == "item", spaces.c.namespace == namespace_key(namespace))
    return items.c.space.in_(space) & items.c.key.in_(keys)


def _matches(condition: MatchCondition, namespace: Namespace) -> bool:
    path = condition.path
    if len(path) > len(namespace):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in {"*", label} for wanted, label in zip(path, part, strict=True))


def _written(key: str, value: Mapping[str, Any], paths: Sequence[str]) -> _Written:
    return _Written(_json(key, value), [text for path in paths for text in get_text_at_path(dict(value), path)])


def _json(key: str, value: Mapping[str, Any]) -> str:
    """Return a value as it is stored; raises RecordInvalidError for a key or a value that cannot be."""
    require_storable("a key", key)
    if not 0 < len(key.encode()) <= MAX_KEY_BYTES:
        raise RecordInvalidError(f"a key has 1 to {MAX_KEY_BYTES} bytes; got {len(key.encode())}")
    try:
        return json.dumps(dict(value))
    except (TypeError, ValueError) as error:
        raise RecordInvalidError(f"the value of {key!r} is not JSON: {error}") from error


def _entry(row: Mapping[str, Any]) -> Entry:
    texts = json.loads(row["texts"])
    return Entry(row["id"], row["position"], "\n".join(texts), vectors=len(texts))
