"""Keep records in SQL: every write is one transaction, and every call names its namespace."""

import builtins
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Engine, Select, func, or_, select

from deltamem_agents.archive import writes
from deltamem_agents.archive.approval import approve, quarantine, reject, said_by_person
from deltamem_agents.archive.audited_database import AuditedDatabase
from deltamem_agents.archive.database import empty_log
from deltamem_agents.archive.dialects import chunks
from deltamem_agents.archive.entries import lock_namespace
from deltamem_agents.archive.errors import RecordNotFoundError
from deltamem_agents.archive.filters import RecordFilter
from deltamem_agents.archive.logged import EXPIRED, by_program, log_added, log_holds, unheld
from deltamem_agents.archive.records import Namespace, Record, namespace_key
from deltamem_agents.archive.rules import Rules, refuse
from deltamem_agents.archive.tables import messages, records
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.audit import AuditEvent, append_all
from deltamem_agents.policy import Forget, PolicyChain, PolicyContext, RecordLike
from deltamem_agents.policy.trust import QUARANTINED
from deltamem_agents.tracing import observed

__all__ = ["RecordStore", "add_decided"]

_EVERY = RecordFilter()
_SHORTEST_ID = 4


class RecordStore(AuditedDatabase):
    """Hold verbatim texts, once per namespace, with their versions and times to live.

    An id that a method has returned can be read from then on by every process, or the method has raised. Threads may
    share a store; after a fork, open another one. Of what is added and updated the policies of the `MemoryStore` that
    the records belong to are asked; records that were opened by themselves have none.
    """

    def __init__(self, engine: Engine, rules: Rules | None = None) -> None:
        """Take an engine that `open_database` has opened, and who is asked about what is written; None is nobody."""
        super().__init__(engine)
        self._rules = rules or Rules()

    def add(self, namespace: Namespace, new: NewRecord) -> Record:
        """Store a text unless the namespace holds it already, and return the record that holds it.

        A text that is there keeps its first source and trust, gets the tags of both (but for quarantine), and lives
        as long as the longer-lived of the two asked for; if it waits in quarantine, and a person who is trusted more
        says it too, it is let through. A message (thread and message id) that was added before
        returns its record of then, unchanged. Raises RecordInvalidError for what cannot be stored, PolicyRefusedError
        for what a policy does not let in, RecordConflictError for a known message with another text, and
        RecordNotFoundError for a known message whose record has expired or was deleted: it is not stored again.
        """
        added = self.add_all(namespace, [new])
        if not added:
            raise RecordNotFoundError(
                f"message {new.message_id!r} of thread {new.thread!r} was archived before, and its record has expired "
                "or was deleted; a message is archived once, so give the text another message_id, or none"
            )
        return added[0]

    def add_all(self, namespace: Namespace, new: Sequence[NewRecord]) -> builtins.list[Record]:
        """Store texts as `add` does, all or none; their order is the order in which they were said.

        Known messages whose records are gone are left out of what is returned.
        """
        namespace_key(namespace)
        decided = [self._rules.record(namespace, one) for one in new]
        kept = [one for one, _ in decided if one is not None]
        if len(kept) < len(decided):
            refuse(self._engine, [(namespace, event) for one, told in decided if one is None for event in told])
        return add_decided(self._engine, namespace, kept, [told for _, told in decided])

    def update(self, namespace: Namespace, record_id: str, text: str, *, expected_version: int) -> Record:
        """Replace a record's text by a new version, which supersedes it under an id of its own; return the new one.

        The old version stays readable by its id. Raises RecordNotFoundError for an id that the namespace does not
        hold, VersionConflictError if the record has been replaced or is at another version, and RecordConflictError
        if another record holds the text already; PolicyRefusedError if a policy does not let the text in.
        """
        key, now = namespace_key(namespace), datetime.now(UTC)
        kept, told = None, [by_program("write", "a new version")]
        old = self.get(namespace, record_id) if self._rules.chains(namespace) else None
        if old is not None:
            said = NewRecord(text, old.thread, old.message_id, old.role, old.source, old.trust, old.tags)
            kept, told = self._rules.record(namespace, said)
            if kept is None:
                refuse(self._engine, [(namespace, event) for event in told])
            text = kept.text
        with self._engine.begin() as connection:
            new = writes.update(connection, key, record_id, text, expected_version, now, kept)
            facts = {"record_id": new.id, "record_digest": new.hash, "thread": new.thread}
            events = [
                event.model_copy(update={**facts, "detail": {**event.detail, "version": new.version}}) for event in told
            ]
            append_all(connection, namespace, events)
        return new

    def get(self, namespace: Namespace, record_id: str) -> Record | None:
        """Return a record of any version, or None if the namespace does not hold it or it has expired."""
        in_time = or_(records.c.expires.is_(None), records.c.expires > datetime.now(UTC))
        mine = (records.c.namespace == namespace_key(namespace)) & (records.c.id == record_id)
        found = self._select(select(records).where(mine, in_time))
        return found[0] if found else None

    def full_id(self, namespace: Namespace, name: str) -> str:
        """Return the id that a part of it stands for: its beginning, its end, or a citation such as [m:3f2a91bc].

        Raises RecordNotFoundError unless exactly one record of the namespace has it.
        """
        part, column = name.removeprefix("[m:").removesuffix("]"), records.c.id
        fits = or_(column.startswith(part, autoescape=True), column.endswith(part, autoescape=True))
        chosen = select(column).where(records.c.namespace == namespace_key(namespace), fits)
        with self._reading() as connection:
            ids = connection.execute(chosen).scalars().all() if len(part) >= _SHORTEST_ID else ()
        if len(ids) > 1:
            raise RecordNotFoundError(f"{name!r} is part of {len(ids)} ids of the namespace; give more of the id")
        if not ids:
            raise RecordNotFoundError(f"the namespace holds no record {name!r}")
        found: str = ids[0]
        return found

    def list(
        self, namespace: Namespace, chosen: RecordFilter = _EVERY, *, limit: int = 100, offset: int = 0
    ) -> builtins.list[Record]:
        """Return the newest records first, of those that the filter lets through."""
        ordered = select(records).where(self._condition(namespace, chosen))
        ordered = ordered.order_by(records.c.created.desc(), records.c.position.desc())
        return self._select(ordered.limit(limit).offset(offset))

    def count(self, namespace: Namespace, chosen: RecordFilter = _EVERY) -> int:
        """Return how many records the filter lets through."""
        counted = select(func.count()).select_from(records).where(self._condition(namespace, chosen))
        with self._reading() as connection:
            return connection.execute(counted).scalar_one()

    def delete(self, namespace: Namespace, record_ids: Sequence[str], *, event: AuditEvent | None = None) -> int:
        """Delete every version of these records, as far as the namespace holds them; return how many versions went.

        The messages that have become these records are not archived again. The bytes are overwritten in SQLite's file,
        and its log is emptied as soon as no reader needs it. event: what the audit log says of each version; None is
        that a program has deleted it.
        """
        key = namespace_key(namespace)
        with observed("forget") as forgetting:
            with self._engine.begin() as connection:
                lock_namespace(connection, "record", key)  # or a version could come after the look at them
                ids = writes.whole_records(connection, key, record_ids)
                chosen = records.c.id.in_(ids) & (records.c.namespace == key)
                gone = writes.delete_where(connection, chosen, event or by_program("forget", "deleted"))
            forgetting.count(versions=gone)
            return self._erased(gone)

    def sweep(self, hold: Callable[[Record], Forget | None] | None = None) -> int:
        """Delete what has expired, in every namespace; return how many versions went.

        hold: decides of a version that it has to stay all the same, which is logged once; nobody finds it.
        """
        expired = records.c.expires <= datetime.now(UTC)
        going = [expired]
        if hold is not None:
            ids = unheld(self._engine, self._select(select(records).where(expired)), hold)
            going = [expired & records.c.id.in_(some) for some in chunks(ids)]
        gone = 0
        for chosen in going:
            with self._engine.begin() as connection:
                gone += writes.delete_where(connection, chosen, EXPIRED)
        return self._erased(gone)

    def forgetting(self, policy: PolicyChain) -> Callable[[RecordLike, PolicyContext], Forget]:
        """Return what decides whether a record may go: a policy, and all that rule the record's namespace."""
        return self._rules.forgetting(policy)

    def log_holds(self, held: Sequence[tuple[Record, Forget]]) -> None:
        """Log which records policies keep from being deleted, once for each."""
        if held:
            with self._engine.begin() as connection:
                log_holds(connection, held)

    def quarantine(self, namespace: Namespace, record_id: str, event: AuditEvent) -> bool:
        """Keep a record from being found until it is approved, and log the event; return False if it is so already."""
        with self._engine.begin() as connection:
            return quarantine(connection, namespace_key(namespace), record_id, event) is not None

    def approve(self, namespace: Namespace, record_id: str, *, actor: str, reason: str = "approved") -> Record:
        """Let a record out of quarantine, so that it can be found and shown; its trust stays as low as it was.

        Raises RecordNotFoundError if the namespace has no such record in quarantine.
        """
        with self._engine.begin() as connection:
            event = AuditEvent(action="approve", reason=reason, actor=actor)
            return approve(connection, namespace_key(namespace), record_id, event)

    def reject(self, namespace: Namespace, record_id: str, *, actor: str, reason: str = "rejected") -> int:
        """Delete a record that is in quarantine, and return how many versions went.

        Its thread does not archive the text again. One of which a policy keeps a version stays in quarantine, and 0 is
        returned. Raises RecordNotFoundError if the namespace has no such record in quarantine.
        """
        key, ask = namespace_key(namespace), self._rules.forgetting(PolicyChain.of(None))
        with self._reading() as connection:
            ids = writes.whole_records(connection, key, [record_id])
        versions = self._select(select(records).where(records.c.id.in_(ids), records.c.namespace == key))
        asked = [(one, ask(one, PolicyContext(namespace, one.thread))) for one in versions]
        with self._engine.begin() as connection:
            event = AuditEvent(action="reject", reason=reason, actor=actor)
            held = [(one, decision) for one, decision in asked if decision.action == "keep"]
            gone = reject(connection, key, record_id, event, held)
        return self._erased(gone)

    def waiting(self, namespace: Namespace, thread: str) -> builtins.list[Record]:
        """Return the records in quarantine that messages of a thread have become, the oldest first."""
        said = messages.c.thread == thread
        led = select(messages.c.record).where(messages.c.namespace == namespace_key(namespace), said)
        chosen = self._condition(namespace, RecordFilter(tags=(QUARANTINED,))) & records.c.id.in_(led)
        return self._select(select(records).where(chosen).order_by(records.c.position))

    def _erased(self, gone: int) -> int:
        if gone:
            empty_log(self._engine)
        return gone

    def _condition(self, namespace: Namespace, chosen: RecordFilter) -> ColumnElement[bool]:
        return chosen.condition(namespace_key(namespace), self._engine.dialect.name)

    def _select(self, chosen: Select[tuple[object, ...]]) -> builtins.list[Record]:
        with self._reading() as connection:
            return [Record.from_row(row) for row in connection.execute(chosen).mappings()]


def add_decided(
    engine: Engine, namespace: Namespace, new: Sequence[NewRecord], decided: Sequence[Sequence[AuditEvent]]
) -> list[Record]:
    """Store texts as `RecordStore.add_all` does, whose policies have been asked already.

    decided: what the audit log says of each text, beside its record.
    """
    key = namespace_key(namespace)
    if not new:
        return []
    with engine.begin() as connection:
        added = writes.add(connection, key, new, datetime.now(UTC))
        log_added(connection, key, new, added, decided)
        let_through = said_by_person(connection, key, new, added)
    return [let_through.get(one.record.id, one.record) for one in added if one.record is not None]
