"""Say in the audit log what became of records and items, in the transaction that did it."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, select

from deltamem_agents.archive.dialects import chunks
from deltamem_agents.archive.records import Added, NewRecord, Record, content_hash
from deltamem_agents.audit import Action, AuditEntry, AuditEvent, append_all
from deltamem_agents.audit.log import entry_of, key_of, namespace_of
from deltamem_agents.audit.tables import audit
from deltamem_agents.policy import Decision, Forget, Retain

__all__ = [
    "EXPIRED",
    "LEFT_OUT",
    "SUBJECT",
    "by_policy",
    "by_program",
    "log_added",
    "log_gone",
    "log_holds",
    "log_items",
    "redactions",
    "refused",
    "rejections",
    "retained",
    "unheld",
    "unlogged",
    "without_quotes",
]

EXPIRED: Final = AuditEvent(action="expire", reason="its time to live is over", actor="archive")
LEFT_OUT: Final = "the reason quotes the text and is left out"
SUBJECT: Final = "subject:"
"""What the tags begin with that say whom a record is about."""

_QUOTE = 24  # characters in a row that a reason shares with a text by quoting it


def by_program(action: Action, reason: str, **fields: Any) -> AuditEvent:
    """Describe what a program did by calling a method, not because a policy said so."""
    return AuditEvent(action=action, reason=reason, actor="program", **fields)


def by_policy(action: Action, decision: Decision, text: str, **fields: Any) -> AuditEvent:
    """Describe what was decided about a text, and never the text."""
    named = {"policy": decision.policy or None, "policy_version": decision.version or None}
    return AuditEvent(action=action, reason=without_quotes(decision.reason, text), **named, **fields)


def retained(
    new: NewRecord, kept: NewRecord, decision: Retain, checkpoint: str | None, *, actor: str | None = None
) -> list[AuditEvent]:
    """Describe why a text goes to the archive, and what was redacted from it; its record is filled in on writing.

    new: the record as it was said; kept: as the policies let it in. actor: its source, unless a program calls.
    """
    detail = {
        "role": kept.role,
        "source": kept.source,
        "trust": kept.trust.name.lower(),
        "tags": [_anonymous(tag) for tag in kept.tags],
        "working": decision.working,
        "decay": decision.decay,
        "seconds": None if kept.ttl is None else kept.ttl.total_seconds(),
    }
    action: Action = "quarantine" if decision.quarantine else "write"
    seen, facts = f"{new.text}\n{kept.text}", {"actor": actor or new.source, "checkpoint": checkpoint}
    return [by_policy(action, decision, seen, detail=detail, **facts), *redactions(decision, seen, {}, facts)]


def refused(new: NewRecord, decision: Retain, checkpoint: str | None, *, actor: str | None = None) -> list[AuditEvent]:
    """Describe why a text does not go to the archive, and what was redacted from it for the working memory."""
    detail: dict[str, Any] = {"message": new.message_id, "role": new.role, "source": new.source}
    detail |= {"working": decision.working, "decay": decision.decay}
    text = new.text if decision.text is None else decision.text
    facts = {
        "actor": actor or new.source,
        "thread": new.thread,
        "checkpoint": checkpoint,
        "record_digest": content_hash(text),
    }
    seen = f"{new.text}\n{text}"
    refusal = by_policy("refuse", decision, seen, detail=detail, **facts)
    return [refusal, *redactions(decision, seen, {"message": new.message_id}, facts)]


def redactions(decision: Retain, seen: str, detail: Mapping[str, object], facts: Mapping[str, Any]) -> list[AuditEvent]:
    """Describe what each policy has redacted, by kinds. seen: what no reason may quote."""
    parts = [part for part in decision.parts if isinstance(part, Retain) and part.redactions]
    kinds = [dict(Counter(span.kind for span in part.redactions)) for part in parts]
    return [
        by_policy("redact", part, seen, detail={**detail, "kinds": count}, **facts)
        for part, count in zip(parts, kinds, strict=True)
    ]


def without_quotes(reason: str, text: str) -> str:
    """Return a reason as the log may hold it; one that quotes the text, whoever wrote its policy, is left out."""
    reason = reason.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    quoted = any(reason[at : at + _QUOTE] in text for at in range(len(reason) - _QUOTE + 1))
    return LEFT_OUT if quoted or (text and reason == text) else reason


def _anonymous(tag: str) -> str:
    """Return a tag as the log may hold it for good: a subject can be forgotten, so there is a digest for the name."""
    return SUBJECT + content_hash(tag.removeprefix(SUBJECT)) if tag.startswith(SUBJECT) else tag


def log_added(
    connection: Connection,
    namespace: str,
    new: Sequence[NewRecord],
    added: Sequence[Added],
    decided: Sequence[Sequence[AuditEvent]],
) -> None:
    """Log the texts that were stored or merged; a message that was known already changed nothing, or is gone.

    decided: for each text, what led to it.
    """
    events: list[AuditEvent] = []
    for one, (record, how), told in zip(new, added, decided, strict=True):
        if record is None or how == "known":
            continue
        facts = {"record_id": record.id, "record_digest": record.hash, "thread": one.thread}
        for event in told:
            detail = {**event.detail, "message": one.message_id, "merged": how == "merged"}
            events.append(event.model_copy(update={**facts, "detail": detail}))
    append_all(connection, namespace_of(namespace), events)


def log_gone(connection: Connection, event: AuditEvent, gone: Sequence[Row[Any]]) -> None:
    """Log an event about each record that was deleted, by its id and digest."""
    events: dict[str, list[AuditEvent]] = defaultdict(list)
    for row in gone:
        facts = {"record_id": row.id, "record_digest": row.hash, "thread": row.thread}
        detail = {**event.detail, "message": row.message_id, "version": row.version}
        events[row.namespace].append(event.model_copy(update={**facts, "detail": detail}))
    for namespace in sorted(events):
        append_all(connection, namespace_of(namespace), events[namespace])


def log_holds(connection: Connection, held: Sequence[tuple[Record, Forget]]) -> None:
    """Log once about each record that a policy keeps from being deleted, and for each reason, however often it does."""
    logged = select(audit.c.record_id, audit.c.reason).where(audit.c.action == "hold")
    some = chunks([record.id for record, _ in held])
    found = (connection.execute(logged.where(audit.c.record_id.in_(ids))) for ids in some)
    known = {(row.record_id, row.reason) for row in itertools.chain.from_iterable(found)}
    events: dict[tuple[str, ...], list[AuditEvent]] = defaultdict(list)
    for record, decision in held:
        detail = {"message": record.message_id, "version": record.version}
        facts = {"record_id": record.id, "record_digest": record.hash, "thread": record.thread}
        event = by_policy("hold", decision, record.text, actor="archive", detail=detail, **facts)
        if (record.id, event.reason) not in known:
            events[record.namespace].append(event)
    for namespace in sorted(events):
        append_all(connection, namespace, events[namespace])


def unheld(engine: Engine, candidates: Sequence[Record], hold: Callable[[Record], Forget | None]) -> list[str]:
    """Return the ids of those that nobody keeps, and log that the others are kept, in a transaction of its own."""
    asked = [(one, hold(one)) for one in candidates]
    held = [(one, decision) for one, decision in asked if decision is not None]
    if held:
        with engine.begin() as connection:
            log_holds(connection, held)
    return [one.id for one, decision in asked if decision is None]


def log_items(connection: Connection, event: AuditEvent, rows: Sequence[Mapping[str, Any]]) -> None:
    """Log an event about each item that was written or deleted, by digests: a key can be what is to be forgotten."""
    events: dict[str, list[AuditEvent]] = defaultdict(list)
    for row in rows:
        facts = {
            "record_id": row["id"],
            "record_digest": content_hash(row["value"]),
            "detail": {**event.detail, "item": content_hash(row["key"])},
        }
        events[row["namespace"]].append(event.model_copy(update=facts))
    for namespace in sorted(events):
        append_all(connection, namespace_of(namespace), events[namespace])


def unlogged(connection: Connection, namespace: tuple[str, ...], events: Sequence[AuditEvent]) -> list[AuditEvent]:
    """Return those events about messages without a record that their thread's log does not have.

    A thread that goes on repeats them.
    """
    threads = {event.thread for event in events}
    actions = {event.action for event in events}
    this = (audit.c.namespace == key_of(namespace)) & audit.c.thread.in_(threads) & audit.c.action.in_(actions)
    rows = connection.execute(select(audit).where(this, audit.c.record_id.is_(None))).mappings()
    known = {_identity(entry) for entry in map(entry_of, rows)}
    return [event for event in events if event.thread is None or _identity(event) not in known]


def rejections(connection: Connection, namespace: tuple[str, ...], thread: str) -> list[AuditEntry]:
    """Return what the log has of a thread's records that were rejected."""
    this = (audit.c.namespace == key_of(namespace)) & (audit.c.thread == thread) & (audit.c.action == "reject")
    return [entry_of(row) for row in connection.execute(select(audit).where(this)).mappings()]


def _identity(event: AuditEvent) -> tuple[object, ...]:
    why = event.policy, event.policy_version, event.reason
    # With what was decided about, since a message may be edited under its id.
    what = event.detail.get("message"), event.record_digest, str(event.detail.get("calls"))
    return event.action, event.thread, *why, *what
