"""Write records inside a transaction that the caller has begun; the indexes are written in the same one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from langchain_core.utils.uuid import uuid7
from sqlalchemy import ColumnElement, Connection, RowMapping, func, or_, select

from deltamem_agents.archive.dialects import chunks, insert_into
from deltamem_agents.archive.entries import Entry, Space, enter, last_position, leave, lock_spaces, locked_space
from deltamem_agents.archive.errors import (
    RecordConflictError,
    RecordInvalidError,
    RecordNotFoundError,
    VersionConflictError,
)
from deltamem_agents.archive.logged import EXPIRED, log_gone
from deltamem_agents.archive.postings import NO_POSITION, relink
from deltamem_agents.archive.records import Added, NewRecord, Record, content_hash, require_storable, tags_of_both
from deltamem_agents.archive.tables import messages, records
from deltamem_agents.archive.threads import note_threads
from deltamem_agents.audit import AuditEvent

__all__ = ["NewRecord", "add", "delete_where", "update", "whole_records"]


def add(connection: Connection, namespace: str, new: Sequence[NewRecord], now: datetime) -> list[Added]:
    """Store texts, each once; see `RecordStore.add`. The caller logs them."""
    space = locked_space(connection, "record", namespace)
    writer = _Writer(connection, namespace, space, now)
    # Before the first is stored: what goes is unlinked from its neighbours, which have to be indexed for that.
    for digests in chunks([content_hash(one.text) for one in new]):
        writer.tags |= _replaced(connection, namespace, digests, now)
    added = [writer.add(one) for one in new]
    enter(connection, space.id, writer.entered)
    note_threads(connection, namespace, {one.thread for one in new if one.thread is not None})
    return added


class _Writer:
    """Store texts of one namespace, and gather what the indexes have to be told."""

    def __init__(self, connection: Connection, namespace: str, space: Space, now: datetime) -> None:
        self.connection = connection
        self.namespace = namespace
        self.space = space
        self.now = now
        self.entered: list[Entry] = []
        self.tags: dict[str, list[str]] = {}
        self._last: dict[str, int] = {}

    def add(self, new: NewRecord) -> Added:
        digest = content_hash(new.text)
        known = self._known_message(new, digest)
        if known is not None:
            return known
        same = (records.c.namespace == self.namespace) & (records.c.hash == digest)
        values = self._values(new, digest)
        stored = _stored(self.connection, values)
        newest = select(records).where(same, records.c.superseded_by.is_(None))
        row = self.connection.execute(newest).mappings().one()
        if stored:
            previous = self._previous(new.thread, values["position"])
            self.entered.append(Entry(row["id"], values["position"], new.text, previous))
        else:
            row = self._merged(row, values)
        self._remember_message(new, row)
        return Added(Record.from_row(row), "stored" if stored else "merged")

    def _values(self, new: NewRecord, digest: str) -> dict[str, Any]:
        return {
            "id": uuid7().hex,
            "namespace": self.namespace,
            "space": self.space.id,
            "position": self.space.next_position + len(self.entered),
            "text": new.text,
            "hash": digest,
            "thread": new.thread,
            "message_id": new.message_id,
            "role": new.role,
            "source": new.source,
            "trust": int(new.trust),
            "tags": tags_of_both(new.tags, self.tags.get(digest, ())),
            "created": new.created or self.now,
            "expires": None if new.ttl is None else self.now + new.ttl,
            "version": 1,
        }

    def _previous(self, thread: str | None, position: int) -> int:
        """Return the position before this one in its thread."""
        if thread is None:
            return NO_POSITION
        if thread not in self._last:
            self._last[thread] = last_position(self.connection, self.space.id, thread, below=position)
        before, self._last[thread] = self._last[thread], position
        return before

    def _known_message(self, new: NewRecord, digest: str) -> Added | None:
        """Return what this message became before, None for a new one.

        Saying a message again never lengthens its life, nor does it bring back what has expired or was deleted.
        """
        if new.thread is None:
            return None
        this = (messages.c.thread == new.thread) & (messages.c.message_id == new.message_id)
        chosen = select(messages).where(this, messages.c.namespace == self.namespace)
        row = self.connection.execute(chosen).mappings().one_or_none()
        if row is None:
            return None
        if row["hash"] != digest:
            raise RecordConflictError(
                f"message {new.message_id!r} of thread {new.thread!r} was archived with another text, as record "
                f"{row['record']!r}; update that record instead"
            )
        found = self.connection.execute(select(records).where(records.c.id == row["record"])).mappings().one_or_none()
        if found is None or (found["expires"] is not None and found["expires"] <= self.now):
            return Added(None, "gone")
        return Added(Record.from_row(found), "known")

    def _merged(self, row: RowMapping, said: Mapping[str, Any]) -> RowMapping:
        """Let a record live as long as the longer-lived of two, and have the tags of both."""
        lives = [row["expires"], said["expires"]]
        changed = {"expires": None if None in lives else max(lives), "tags": tags_of_both(row["tags"], said["tags"])}
        if all(row[name] == value for name, value in changed.items()):
            return row
        change = records.update().where(records.c.id == row["id"]).values(changed).returning(records)
        return self.connection.execute(change).mappings().one()

    def _remember_message(self, new: NewRecord, row: RowMapping) -> None:
        if new.thread is None:
            return
        values = {"namespace": self.namespace, "thread": new.thread, "message_id": new.message_id}
        values |= {"record": row["id"], "hash": row["hash"]}
        self.connection.execute(insert_into(self.connection, messages).on_conflict_do_nothing().values(values))


def update(
    connection: Connection,
    namespace: str,
    record_id: str,
    text: str,
    expected_version: int,
    now: datetime,
    ruled: NewRecord | None = None,
) -> Record:
    """Replace a record by a new version; see `RecordStore.update`. ruled: what policies make of it beside its text."""
    require_storable("the text of a record", text)
    if not text:
        raise RecordInvalidError("the text of a record is empty; delete the record instead")
    space = locked_space(connection, "record", namespace)
    mine = (records.c.namespace == namespace) & (records.c.id == record_id)
    row = connection.execute(select(records).where(mine)).mappings().one_or_none()
    _require_current(row, record_id, expected_version, now)
    digest = content_hash(text)
    new_id = uuid7().hex
    connection.execute(records.update().where(mine).values(superseded_by=new_id, superseded_at=now))
    changed = {"id": new_id, "position": space.next_position, "text": text, "hash": digest, "created": now}
    values: dict[str, Any] = {**dict(row or {}), **changed, "version": expected_version + 1, "supersedes": record_id}
    values["tags"] = tags_of_both(values["tags"], _replaced(connection, namespace, [digest], now).get(digest, ()))
    if ruled is not None:
        ends = (values["expires"], None if ruled.ttl is None else now + ruled.ttl)
        lives = [end for end in ends if end is not None]
        values |= {"trust": min(values["trust"], int(ruled.trust)), "expires": min(lives, default=None)}
        values["tags"] = list(dict.fromkeys((*values["tags"], *ruled.tags)))
    if not _stored(connection, values):
        raise RecordConflictError("another record of the namespace holds this text already")
    previous = last_position(connection, space.id, row["thread"] if row else None, below=space.next_position)
    enter(connection, space.id, [Entry(new_id, space.next_position, text, previous)])
    return Record.from_row(connection.execute(select(records).where(records.c.id == new_id)).mappings().one())


def whole_records(connection: Connection, namespace: str, record_ids: Sequence[str]) -> set[str]:
    """Return these ids with those of every other version of the same records."""
    found: set[str] = set()
    wanted = set(record_ids)
    mine = records.c.namespace == namespace
    while wanted:
        linked = or_(*(column.in_(wanted) for column in (records.c.id, records.c.supersedes, records.c.superseded_by)))
        versions = set(connection.execute(select(records.c.id).where(mine, linked)).scalars())
        wanted = versions - found
        found |= versions
    return found


def delete_where(
    connection: Connection, chosen: ColumnElement[bool], logged: AuditEvent | None = None, *, keep_space: bool = False
) -> int:
    """Delete the chosen versions, and return how many there were.

    That messages have led to them stays known, so that no message becomes a record a second time. logged: what the
    audit log says of each version that goes; None where the caller says it.
    """
    spaces = connection.execute(select(records.c.space).where(chosen).distinct()).scalars().all()
    if not spaces:
        return 0
    lock_spaces(connection, spaces)
    gone = connection.execute(records.delete().where(chosen).returning(records)).all()
    left: dict[int, list[Entry]] = defaultdict(list)
    for row in gone:
        left[row.space].append(Entry(row.id, row.position, row.text))
    for row in gone:
        if row.thread is not None:
            _close_gap(connection, row.space, row.thread, row.position)
    for space, entries in left.items():
        leave(connection, space, entries, keep_space=keep_space)
    if logged is not None:
        log_gone(connection, logged, gone)
    return len(gone)


def _replaced(connection: Connection, namespace: str, digests: Sequence[str], now: datetime) -> dict[str, list[str]]:
    """Delete expired records that are about to be said again; return their tags, by digest: a hold stays on a text."""
    same = (records.c.namespace == namespace) & records.c.hash.in_(digests) & (records.c.expires <= now)
    found = connection.execute(select(records.c.hash, records.c.tags).where(same)).all()
    delete_where(connection, same, EXPIRED, keep_space=True)
    tags: dict[str, list[str]] = {}
    for row in found:
        tags[row.hash] = tags_of_both(tags.get(row.hash, ()), row.tags)
    return tags


def _stored(connection: Connection, values: dict[str, Any]) -> bool:
    """Insert a version, unless the namespace holds its text already; say whether it did."""
    insert = insert_into(connection, records).on_conflict_do_nothing().values(values)
    return connection.execute(insert.returning(records.c.id)).one_or_none() is not None


def _require_current(row: RowMapping | None, record_id: str, expected_version: int, now: datetime) -> None:
    if row is None or (row["expires"] is not None and row["expires"] <= now):
        raise RecordNotFoundError(f"the namespace holds no record {record_id!r}")
    if row["superseded_by"] is not None or row["version"] != expected_version:
        raise VersionConflictError(
            f"record {record_id!r} is at version {row['version']}, expected {expected_version}"
            + (f", and replaced by {row['superseded_by']!r}" if row["superseded_by"] else "")
            + "; read it again before you change it"
        )


def _close_gap(connection: Connection, space: int, thread: str, position: int) -> None:
    """Let the position after a deleted one follow the one before it."""
    later = (records.c.space == space) & (records.c.thread == thread) & (records.c.position > position)
    following = connection.execute(select(func.min(records.c.position)).where(later)).scalar_one()
    if following is not None:
        relink(connection, space, following, last_position(connection, space, thread, below=position))
