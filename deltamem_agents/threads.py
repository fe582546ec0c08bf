"""List, fork and export the threads of a checkpointer, and say what a rollback of one takes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from langchain_core.messages import BaseMessage, messages_to_dict
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from backbone import ConfigError
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archive.threads import note_copy
from deltamem_agents.forgetting.histories import messages_of, thread_messages
from deltamem_agents.forgetting.plan import Rolled
from deltamem_agents.forgetting.rollback import RolledBack, goes_on
from deltamem_agents.forgetting.rows import CheckpointRows, Moved, Stored
from deltamem_agents.forgetting.said import traces
from deltamem_agents.forgetting.savers import rows_of
from deltamem_agents.memory_cell import memory_from

__all__ = ["ThreadSummary", "export_thread", "fork_thread", "list_threads", "look_back"]

Saver = BaseCheckpointSaver[Any]

_SHORTEST = 4


@dataclass(frozen=True, slots=True)
class ThreadSummary:
    """Describe a thread as it is now. updated: when its newest checkpoint was made, ISO 8601.

    messages: in its state. absorbed: over its whole life, 0 without a working memory.
    """

    thread: str
    checkpoint: str
    updated: str
    messages: int
    absorbed: int


def list_threads(saver: Saver) -> list[ThreadSummary]:
    """Return the threads that have checkpoints, the one that was used last first."""
    heads = [(thread, _head(saver, thread)) for thread in rows_of(saver).threads()]
    found = [_summary(thread, head) for thread, head in heads if head is not None]
    return sorted(found, key=lambda one: one.updated, reverse=True)


def fork_thread(
    saver: Saver, thread: str, target: str, *, checkpoint: str | None = None, store: MemoryStore | None = None
) -> int:
    """Copy a thread up to a checkpoint, the newest if none is named, to a new thread; return how many were copied.

    checkpoint: its id, or as much of its beginning or end as no other has, four characters at least.
    The copy begins without what tasks had begun to write after that checkpoint, and without the checkpoints that
    subgraphs keep of their own. store: the archive of the thread; with it `forget` reaches the copy as it reaches the
    thread, also if nothing more is said there. Raises ConfigError for an unknown thread or checkpoint, and for a target
    that exists.
    """
    rows = rows_of(saver)
    if target in rows.threads():
        raise ConfigError(f"there is a thread {target!r} already; name another one to fork to")
    line = _line(rows, thread, checkpoint)
    if store is not None:
        # Noted first: a note of a copy that was never made does no harm.
        with store.engine.begin() as connection:
            note_copy(connection, thread, target, messages_of(rows, line).keys())
    rows.copy(thread, target, [(one.space, one.id) for one in line])
    return len(line)


def export_thread(saver: Saver, thread: str) -> dict[str, Any]:
    """Return a thread as plain data: its messages, its working memory as counts, and its checkpoints.

    Raises ConfigError for an unknown thread.
    """
    rows = rows_of(saver)
    line = _line(rows, thread, None)
    head = _head(saver, thread)
    values = {} if head is None else head.checkpoint["channel_values"]
    memory = memory_from(values)
    messages: list[BaseMessage] = list(thread_messages(rows, thread).values())
    return {
        "thread": thread,
        "messages": messages_to_dict(messages),
        "in_state": [message.id for message in values.get("messages", ())],
        "working_memory": None
        if memory is None
        else {"fingerprint": memory.fingerprint, "messages": memory.messages, "tokens": memory.tokens},
        "checkpoints": [{"id": one.id, "parent": one.parent, "source": one.source} for one in line],
    }


def look_back(saver: Saver, thread: str, checkpoint: str) -> RolledBack:
    """Return what a rollback to a checkpoint takes; nothing is changed.

    checkpoint: as `fork_thread` takes it.
    What tasks had written after it goes as well, so that the thread waits where it was then. Raises ConfigError for an
    unknown thread or checkpoint, DeltaMemError if the thread goes on meanwhile.
    """
    rows = rows_of(saver)
    last = _line(rows, thread, checkpoint)[-1]
    head = saver.get_tuple({"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": last.id}})
    if head is None:
        raise ConfigError(f"checkpoint {checkpoint!r} of thread {thread!r} is gone; somebody else uses the thread")
    stored = rows.load(thread)
    try:
        # Changes nothing, and finds out whether the thread goes on.
        rows.save(thread, stored, {})
    except Moved:
        raise goes_on(thread) from None
    newer = [one.id for one in stored if one.id > last.id]
    goes = Rolled(thread=thread, checkpoint=last.id, newest=max(newer, default=last.id), removed=len(newer))
    before, after = (messages_of(rows, some) for some in (stored, [one for one in stored if one.id <= last.id]))
    texts = {text for message in before.values() for text in traces(dict(message))}
    texts -= {text for message in after.values() for text in traces(dict(message))}
    made = datetime.fromisoformat(head.checkpoint["ts"])
    return RolledBack(thread, last.id, made, set(after), (goes,) if newer or last.writes else (), texts)


def _line(rows: CheckpointRows, thread: str, checkpoint: str | None) -> Sequence[Stored]:
    """Return a checkpoint with all before it, the oldest first."""
    stored = {one.id: one for one in rows.load(thread) if not one.space}
    if not stored:
        raise ConfigError(f"there is no thread {thread!r}; see `deltamem threads list`")
    name: str | None = max(stored) if checkpoint is None else _full_id(stored, checkpoint, thread)
    line = []
    while name in stored:
        line.append(stored[name])
        name = stored[name].parent
    return line[::-1]


def _full_id(ids: Iterable[str], name: str, thread: str) -> str:
    fits = [
        one for one in ids if one == name or (len(name) >= _SHORTEST and (one.startswith(name) or one.endswith(name)))
    ]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise ConfigError(f"{name!r} is part of {len(fits)} checkpoints of thread {thread!r}; give more of the id")
    raise ConfigError(f"thread {thread!r} has no checkpoint {name!r}; see `deltamem threads export`")


def _head(saver: Saver, thread: str) -> CheckpointTuple | None:
    return saver.get_tuple({"configurable": {"thread_id": thread, "checkpoint_ns": ""}})


def _summary(thread: str, head: CheckpointTuple) -> ThreadSummary:
    values = head.checkpoint["channel_values"]
    memory = memory_from(values)
    absorbed = 0 if memory is None else memory.messages
    return ThreadSummary(
        thread, head.checkpoint["id"], head.checkpoint["ts"], len(values.get("messages", ())), absorbed
    )
