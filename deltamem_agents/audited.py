"""Describe decisions for the audit log: who decided what about which message or record, and never its text."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from langchain_core.messages import AIMessage

from deltamem_agents.archive.records import NewRecord, Record, content_hash
from deltamem_agents.audit import AuditEvent
from deltamem_agents.memory_cell import TurnReport
from deltamem_agents.policy import Decision, Present, Retain, Retrieve
from deltamem_agents.recalled import Shown
from deltamem_agents.running import current_place

__all__ = [
    "LEFT_OUT",
    "SUBJECT",
    "absorbed",
    "held",
    "held_call",
    "presented",
    "refused",
    "retained",
    "searched",
    "without_quotes",
]

LEFT_OUT = "the reason quotes the text and is left out"
SUBJECT = "subject:"
"""What the tags begin with that say whom a record is about."""

_QUOTE = 24  # characters in a row that a reason shares with a text by quoting it


def retained(new: NewRecord, decision: Retain, checkpoint: str | None) -> list[AuditEvent]:
    """Describe why a message goes to the archive, and what was redacted from it; its record is filled in on writing."""
    detail = {
        "role": new.role,
        "trust": new.trust.name.lower(),
        "tags": [_anonymous(tag) for tag in new.tags],
        "working": decision.working,
        "seconds": None if new.ttl is None else new.ttl.total_seconds(),
    }
    action = "quarantine" if decision.quarantine else "write"
    events = [_event(action, decision, new.text, actor=new.source, checkpoint=checkpoint, detail=detail)]
    redacting = [part for part in decision.parts if isinstance(part, Retain) and part.redactions]
    for part in redacting:
        kinds = dict(Counter(span.kind for span in part.redactions))
        events.append(
            _event("redact", part, new.text, actor=new.source, checkpoint=checkpoint, detail={"kinds": kinds})
        )
    return events


def refused(new: NewRecord, decision: Retain, checkpoint: str | None) -> AuditEvent:
    """Describe why a message does not go to the archive."""
    detail = {"message": new.message_id, "role": new.role, "working": decision.working}
    seen = f"{new.text}\n{decision.text or ''}"
    return _event("refuse", decision, seen, actor=new.source, thread=new.thread, checkpoint=checkpoint, detail=detail)


def held_call(message: AIMessage, decision: Retain, thread: str | None, checkpoint: str | None) -> AuditEvent:
    """Describe why a call of tools without text, of which there is no record, is kept from the working memory."""
    names = [call["name"] for call in message.tool_calls]
    detail = {"message": message.id, "role": "assistant", "working": False, "calls": names}
    return _event("quarantine", decision, "", actor="agent", thread=thread, checkpoint=checkpoint, detail=detail)


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
