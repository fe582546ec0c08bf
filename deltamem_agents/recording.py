"""Turn a message into the record that the archive keeps of it, if the policies let it in."""

from datetime import datetime

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, ToolMessage

from deltamem_agents.archive.records import Trust
from deltamem_agents.archive.rules import ruled
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.lineage import Lineage
from deltamem_agents.messages import is_written
from deltamem_agents.policy import Retain, describe
from deltamem_agents.policy.hooks import source_of

__all__ = ["decide", "may_be_kept", "to_record"]


def to_record(message: BaseMessage, thread: str | None, said: datetime) -> NewRecord | None:
    """Describe a message as the archive keeps it, or return None for what is never archived.

    Never archived: system messages, messages without text, and what the archive itself has given (marked as not to be
    written). Tool results are trusted less than what people and the agent say. Raises RecordInvalidError for text that
    SQL cannot store.
    """
    text = message.text
    if not text.strip() or not may_be_kept(message):
        return None
    seen = describe(message)
    named = thread is not None and message.id is not None
    return NewRecord(
        text,
        thread=thread if named else None,
        message_id=message.id if named else None,
        role=seen.role,
        source=seen.source,
        trust=Trust.LOW if seen.role == "tool" else Trust.MEDIUM,
        created=said,
    )


def may_be_kept(message: BaseMessage) -> bool:
    """Tell whether policies are asked about a message: not the system's, nor what is marked as not to be written."""
    if isinstance(message, ChatMessage):
        return is_written(message) and source_of(message) in {"user", "agent"}
    return is_written(message) and isinstance(message, HumanMessage | AIMessage | ToolMessage)


def decide(lineage: Lineage, new: NewRecord, message: BaseMessage) -> tuple[NewRecord | None, Retain]:
    """Return a record as the policies let it into the archive, None if they do not, and what they decided.

    lineage: has followed what was said before the message.
    """
    decision = lineage.decision(message)
    return ruled(new, decision), decision
