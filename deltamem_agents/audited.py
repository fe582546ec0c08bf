"""Describe decisions for the audit log: who decided what about which message or record, and never its text."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from langchain_core.messages import BaseMessage

from deltamem_agents.archive.records import NewRecord, Record, content_hash, require_storable
from deltamem_agents.audit import AuditEvent
from deltamem_agents.memory_cell import TurnReport
from deltamem_agents.policy import Decision, Present, Retain, Retrieve, describe
from deltamem_agents.recalled import Shown
from deltamem_agents.running import current_place

__all__ = [
    "LEFT_OUT",
    "SUBJECT",
    "absorbed",
    "held",
    "presented",
    "refused",
    "retained",
    "searched",
    "unrecorded",
    "without_quotes",
]

LEFT_OUT = "the reason quotes the text and is left out"
SUBJECT = "subject:"
"""What the tags begin with that say whom a record is about."""

_QUOTE = 24  # characters in a row that a reason shares with a text by quoting it


def retained(new: NewRecord, kept: NewRecord, decision: Retain, checkpoint: str | None) -> list[AuditEvent]:
    """Describe why a message goes to the archive, and what was redacted from it; its record is filled in on writing.

    new: the record as the message was said; kept: as the policies let it in.
    """
    detail = {
        "role": kept.role,
        "trust": kept.trust.name.lower(),
        "tags": [_anonymous(tag) for tag in kept.tags],
        "working": decision.working,
        "decay": decision.decay,
        "seconds": None if kept.ttl is None else kept.ttl.total_seconds(),
    }
    action = "quarantine" if decision.quarantine else "write"
    seen, facts = f"{new.text}\n{kept.text}", {"actor": new.source, "checkpoint": checkpoint}
    return [_event(action, decision, seen, detail=detail, **facts), *_redactions(decision, seen, {}, facts)]


def refused(new: NewRecord, decision: Retain, checkpoint: str | None) -> list[AuditEvent]:
    """Describe why a message does not go to the archive, and what was redacted from it for the working memory."""
    detail = {"message": new.message_id, "role": new.role, "working": decision.working, "decay": decision.decay}
    text = new.text if decision.text is None else decision.text
    facts = {
        "actor": new.source,
        "thread": new.thread,
        "checkpoint": checkpoint,
        "record_digest": content_hash(text),
    }
    seen = f"{new.text}\n{text}"
    refusal = _event("refuse", decision, seen, detail=detail, **facts)
    return [refusal, *_redactions(decision, seen, {"message": new.message_id}, facts)]


def unrecorded(message: BaseMessage, decision: Retain, thread: str | None, checkpoint: str | None) -> AuditEvent:
    """Describe what becomes of a message without text, such as a call of tools, of which there is no record.

    Raises RecordInvalidError for names that SQL cannot store.
    """
    said = describe(message)
    for what, name in (("a source", said.source), ("a thread", thread or "")):
        require_storable(what, name)
    detail = {
        "message": message.id,
        "role": said.role,
        "working": decision.working and not decision.quarantine,
        "decay": decision.decay,
        "calls": list(said.calls),
    }
    action = "quarantine" if decision.quarantine else "write" if decision.working else "refuse"
    # One without an id cannot be found in the log again.
    named = thread if message.id is not None else None
    return _event(action, decision, "", actor=said.source, thread=named, checkpoint=checkpoint, detail=detail)


def searched(query: str, decision: Retrieve, passages: Sequence[Shown]) -> AuditEvent:
    """Describe a search for the model, and what became of each record that was found; or why it did not run."""
    verdicts: dict[str, list[str]] = defaultdict(list)
    for passage in passages:
        verdicts[passage.verdict].append(passage.id)
    place = current_place()
    return _event(
        "recall" if decision.allowed else "refuse",
        decision,
        query,
        actor="agent",
        thread=place.thread,
        checkpoint=place.checkpoint,
        detail={"found": len(passages), "records": dict(verdicts)},
    )


def presented(record: Record, decision: Present) -> AuditEvent:
    """Describe why a record that was found is masked, withheld or quarantined."""
    place = current_place()
    return _event(
        "present",
        decision,
        record.text,
        actor="agent",
        record_id=record.id,
        record_digest=record.hash,
        thread=place.thread,
        checkpoint=place.checkpoint,
        detail={"shown": decision.action},
    )


def held(record: Record, decision: Present) -> AuditEvent:
    """Describe why a record that was found goes into quarantine; which one it is is filled in on writing."""
    return _event("quarantine", decision, record.text, actor="agent", checkpoint=current_place().checkpoint)


def absorbed(turns: Sequence[TurnReport]) -> list[AuditEvent]:
    """Describe what model calls have folded into the working memory of the thread that runs."""
    place = current_place()
    return [
        AuditEvent(
            action="absorb",
            reason="left the window",
            actor="agent",
            thread=place.thread,
            checkpoint=place.checkpoint,
            detail={
                "messages": turn.absorbed_now,
                "tokens": turn.tokens_now,
                "messages_in_all": turn.absorbed_messages,
            },
        )
        for turn in turns
    ]


def without_quotes(reason: str, text: str) -> str:
    """Return a reason as the log may hold it; one that quotes the text, whoever wrote its policy, is left out."""
    quoted = any(reason[at : at + _QUOTE] in text for at in range(len(reason) - _QUOTE + 1))
    return LEFT_OUT if quoted or (text and reason == text) else reason


def _anonymous(tag: str) -> str:
    """Return a tag as the log may hold it for good: a subject can be forgotten, so there is a digest for the name."""
    return SUBJECT + content_hash(tag.removeprefix(SUBJECT)) if tag.startswith(SUBJECT) else tag


def _redactions(
    decision: Retain, seen: str, detail: Mapping[str, object], facts: Mapping[str, object]
) -> list[AuditEvent]:
    """Describe what each policy has redacted, by kinds."""
    parts = [part for part in decision.parts if isinstance(part, Retain) and part.redactions]
    kinds = [dict(Counter(span.kind for span in part.redactions)) for part in parts]
    return [
        _event("redact", part, seen, detail={**detail, "kinds": count}, **facts)
        for part, count in zip(parts, kinds, strict=True)
    ]


def _event(action: str, decision: Decision, text: str, **fields: object) -> AuditEvent:
    return AuditEvent.model_validate(
        {
            "action": action,
            "reason": without_quotes(decision.reason, text),
            "policy": decision.policy or None,
            "policy_version": decision.version or None,
            **fields,
        }
    )
