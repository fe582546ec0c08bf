"""Tell what happened in a thread, in order, out of its checkpoints and of what the archive keeps of it."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from backbone import ConfigError
from deltamem_agents.archive.filters import RecordFilter
from deltamem_agents.archive.records import Namespace
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.memory_cell import memory_from
from deltamem_agents.messages import to_entries
from deltamem_agents.working_memory import WorkingMemory

__all__ = ["Event", "MemoryPoint", "Timeline", "archived_events", "decided_events", "thread_timeline"]

Kind = Literal["said", "absorbed", "archived", "recalled", "decided"]
_RECALLED = "recalled"


@dataclass(frozen=True, slots=True)
class Event:
    """Say that something happened at a time: what kind of thing, by whom, and what, as text and as plain data."""

    time: datetime
    kind: Kind
    who: str
    text: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemoryPoint:
    """Hold what the working memory was after a checkpoint in which it changed.

    messages, tokens: absorbed so far. norms: Frobenius norm of the state by layer. moved: its distance from the state
    before.
    """

    time: datetime
    messages: int
    tokens: int
    norms: Mapping[str, float]
    moved: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """Hold a thread as it went: its events by time, and its working memory wherever that changed.

    checkpoints: those on the way to the newest one. messages: everything said on that way, oldest first, whether it is
    still in the newest checkpoint or not. fingerprint: the adapter of its memory, None without a memory.
    """

    thread: str
    checkpoints: int
    messages: tuple[BaseMessage, ...]
    events: tuple[Event, ...]
    memory: tuple[MemoryPoint, ...]
    fingerprint: str | None


@dataclass(frozen=True, slots=True)
class _Step:
    """Hold what one checkpoint added to the one before."""

    said: list[BaseMessage]
    events: list[Event]
    memory: list[MemoryPoint]


def thread_timeline(saver: BaseCheckpointSaver[Any], thread: str) -> Timeline:
    """Read a thread's checkpoints from the newest one back along its parents; other forks are left out.

    Raises ConfigError for a thread that has no checkpoints, StateError for a memory that cannot be read.
    """
    steps: list[_Step] = []
    fingerprint: str | None = None
    for newer, older in itertools.pairwise([*_branch(saver, thread), None]):
        if newer is None:
            continue
        before = {} if older is None else _values(older)
        steps.append(_step(before, _values(newer), datetime.fromisoformat(newer.checkpoint["ts"])))
        if fingerprint is None and (memory := memory_from(_values(newer))) is not None:
            fingerprint = memory.fingerprint
    if not steps:
        raise ConfigError(f"there is no thread {thread!r}; `deltamem threads list` names those there are")
    steps.reverse()
    return Timeline(
        thread,
        len(steps),
        tuple(message for step in steps for message in step.said),
        tuple(event for step in steps for event in step.events),
        tuple(point for step in steps for point in step.memory),
        fingerprint,
    )


def archived_events(store: MemoryStore, namespace: Namespace, thread: str, limit: int = 1000) -> list[Event]:
    """List what the archive keeps of a thread in one namespace, oldest first; at most its newest `limit` records."""
    found = store.records.list(namespace, RecordFilter(thread=thread), limit=limit)
    return [
        Event(
            record.created,
            "archived",
            record.source,
            record.text,
            {"id": record.id, "trust": record.trust.name.lower(), "tags": list(record.tags)},
        )
        for record in reversed(found)
    ]


def decided_events(store: MemoryStore, namespace: Namespace, thread: str, limit: int = 1000) -> list[Event]:
    """List what the audit log of a namespace has of a thread, oldest first; at most its newest `limit` entries."""
    entries = store.records.audit_entries(namespace, thread=thread, limit=limit)
    return [
        Event(
            entry.time,
            "decided",
            entry.actor,
            f"{entry.action}: {entry.reason}" + (f" ({entry.policy})" if entry.policy else ""),
            entry.model_dump(
                mode="json", include={"action", "reason", "policy", "policy_version", "record_id", "detail"}
            ),
        )
        for entry in reversed(entries)
    ]


def _branch(saver: BaseCheckpointSaver[Any], thread: str) -> Iterator[CheckpointTuple]:
    """Yield the newest checkpoint, its parent, and so on; a checkpoint's id sorts by time, so parents come later."""
    wanted: str | None = None
    for found in saver.list({"configurable": {"thread_id": thread, "checkpoint_ns": ""}}):
        if wanted is not None and found.checkpoint["id"] != wanted:
            continue
        yield found
        if found.parent_config is None:
            return
        wanted = found.parent_config["configurable"]["checkpoint_id"]


def _values(found: CheckpointTuple) -> dict[str, Any]:
    return found.checkpoint["channel_values"]


def _step(before: Mapping[str, Any], after: Mapping[str, Any], time: datetime) -> _Step:
    earlier, now = _messages(before), _messages(after)
    said = [message for key, message in now.items() if key not in earlier and not isinstance(message, SystemMessage)]
    events = []
    for message in said:
        found = message.response_metadata.get(_RECALLED) if isinstance(message, AIMessage) else None
        if found:
            events.append(_recalled(time, found))
        events.append(_said(time, message))
    old, new = memory_from(before), memory_from(after)
    if new is None or new.messages == (0 if old is None else old.messages):
        return _Step(said, events, [])
    point = _point(time, old, new)
    known = set() if old is None else set(old.digests)
    texts = {**earlier, **now}
    left = [texts[digest] for digest in new.digests if digest not in known and digest in texts]
    events.append(_absorbed(point, left, new.messages - (0 if old is None else old.messages)))
    return _Step(said, events, [point])


def _messages(values: Mapping[str, Any]) -> dict[bytes, BaseMessage]:
    messages: Sequence[BaseMessage] = values.get("messages") or ()
    if not messages:
        return {}
    return {entry.digest: message for entry, message in zip(to_entries(messages), messages, strict=True)}


def _said(time: datetime, message: BaseMessage) -> Event:
    if isinstance(message, HumanMessage):
        return Event(time, "said", "user", message.text)
    if isinstance(message, ToolMessage):
        return Event(time, "said", f"tool:{message.name or message.tool_call_id}", message.text)
    calls = [{"name": call["name"], "args": call["args"]} for call in getattr(message, "tool_calls", ())]
    shown = [f"{call['name']}({', '.join(f'{k}={v!r}' for k, v in call['args'].items())})" for call in calls]
    return Event(time, "said", "agent", " ".join([message.text, *shown]).strip(), {"calls": calls} if calls else {})


def _recalled(time: datetime, found: Sequence[Mapping[str, Any]]) -> Event:
    shown = [passage for passage in found if passage["verdict"] == "shown"]
    cited = [str(passage["citation"]) for passage in found if passage["cited"]]
    told = f"{len(shown)} of {len(found)} found were shown" + (f", cited {', '.join(cited)}" if cited else "")
    return Event(time, "recalled", "archive", told, {"found": [dict(passage) for passage in found]})


def _absorbed(point: MemoryPoint, left: Sequence[BaseMessage], count: int) -> Event:
    texts = [message.text for message in left if message.text]
    quoted = f": {texts[0]!r}" + (f" … {texts[-1]!r}" if len(texts) > 1 else "") if texts else ""
    detail = {"messages": count, "messages_in_all": point.messages, "tokens_in_all": point.tokens, "moved": point.moved}
    return Event(point.time, "absorbed", "memory", f"{count} messages left the window{quoted}", detail)


def _point(time: datetime, old: WorkingMemory | None, new: WorkingMemory) -> MemoryPoint:
    norms = {name: float(norm.square().sum().sqrt()) for name, norm in new.state.norms().items()}
    before = new.state.decay(0.0) if old is None or old.fingerprint != new.fingerprint else old.state
    return MemoryPoint(time, new.messages, new.tokens, norms, float(new.state.distance(before)[0]))
