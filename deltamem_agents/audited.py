"""Describe decisions for the audit log: who decided what about which message or record, and never its text."""

from collections import defaultdict
from collections.abc import Sequence

from langchain_core.messages import BaseMessage

from deltamem_agents.archive.logged import by_policy
from deltamem_agents.archive.records import Record, require_storable
from deltamem_agents.audit import Action, AuditEvent
from deltamem_agents.memory_cell import TurnReport
from deltamem_agents.policy import Present, Retain, Retrieve, describe
from deltamem_agents.recalled import Shown
from deltamem_agents.running import current_place

__all__ = ["absorbed", "held", "presented", "searched", "unrecorded"]


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
    action: Action = "quarantine" if decision.quarantine else "write" if decision.working else "refuse"
    # One without an id cannot be found in the log again.
    named = thread if message.id is not None else None
    return by_policy(action, decision, "", actor=said.source, thread=named, checkpoint=checkpoint, detail=detail)


def searched(query: str, decision: Retrieve, passages: Sequence[Shown]) -> AuditEvent:
    """Describe a search for the model, and what became of each record that was found; or why it did not run."""
    verdicts: dict[str, list[str]] = defaultdict(list)
    for passage in passages:
        verdicts[passage.verdict].append(passage.id)
    place = current_place()
    return by_policy(
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
    return by_policy(
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
    return by_policy("quarantine", decision, record.text, actor="agent", checkpoint=current_place().checkpoint)


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
