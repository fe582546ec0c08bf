"""Take messages out of every checkpoint of a thread, and out of the working memories that have absorbed them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from backbone import DeltaMemError
from deltamem_agents.decided import decided_from_bytes, decided_key, decided_to_bytes, names_of
from deltamem_agents.forgetting.absorbed import absorbed_by
from deltamem_agents.forgetting.replay import (
    Absorb,
    Item,
    Outcome,
    Replay,
    items_of,
    memory_channels,
    message_channel,
)
from deltamem_agents.forgetting.rows import DROPPED, Change, CheckpointRows, Moved, Stored, Write
from deltamem_agents.forgetting.said import Said, traces
from deltamem_agents.forgetting.scrub import Scrubber

__all__ = ["ThreadReport", "erase_from_thread", "messages_of", "remaining", "thread_messages", "whole_units"]

_ATTEMPTS = 5
How = Literal["untouched", "replayed", "rewound"]


@dataclass(frozen=True, slots=True)
class ThreadReport:
    """Say what was done to a thread.

    memory: untouched (it had absorbed nothing that went, nor anything after it), replayed, or taken back to before.
    exact: whether a replay of the thread as it was gave what it had given; None if that was not tried. anew: no
    checkpoint is from before what went, so that the memory begins with the messages that are left.
    """

    checkpoints: int
    memory: How
    exact: bool | None
    anew: bool = False


def thread_messages(rows: CheckpointRows, thread: str) -> dict[str, BaseMessage]:
    """Return every message that a checkpoint of the thread holds, by id, in the order of their coming."""
    return messages_of(rows, rows.load(thread))


def messages_of(rows: CheckpointRows, checkpoints: Sequence[Stored]) -> dict[str, BaseMessage]:
    """Return every message that these checkpoints of one thread hold, as `thread_messages` does."""
    known: dict[bytes, Item] = {}
    found: dict[str, BaseMessage] = {}
    for stored in _spaces(checkpoints):
        channel = message_channel(stored)
        for one in stored:
            found |= {item.id: item.message for item in items_of(rows, one.values.get(channel), known)}
    return found


def remaining(rows: CheckpointRows, thread: str, gone: Collection[str], *, changed: bool) -> set[bytes]:
    """Return the bytes of a thread's messages but for those that are to be gone, and the names of its channels.

    changed: the thread was rewritten; what a graph was given in another form than messages is not counted then.
    """
    checkpoints = rows.load(thread)
    found = Said(rows, checkpoints)
    names = {name.encode() for one in checkpoints for name in one.versions}
    given = () if changed else found.inputs(message_channel(checkpoints))
    return {*found.remaining(gone), *names, *given}


def whole_units(messages: dict[str, BaseMessage], chosen: Collection[str]) -> set[str]:
    """Return these messages with the tool calls or results that make no sense without them."""
    callers = {
        call["id"]: name for name, message in messages.items() if isinstance(message, AIMessage)
        for call in message.tool_calls
    }  # fmt: skip
    unit = {
        name: callers.get(message.tool_call_id, name) if isinstance(message, ToolMessage) else name
        for name, message in messages.items()
    }
    units = {unit[name] for name in chosen if name in unit}
    return {name for name in unit if unit[name] in units}


def erase_from_thread(
    rows: CheckpointRows, thread: str, gone: Collection[str], absorb: Absorb | None, digests: Collection[str] = ()
) -> ThreadReport:
    """Rewrite a thread's checkpoints as if these messages had never been there, all or none.

    digests: SHA-256 of other texts that go.
    Raises DeltaMemError if the thread goes on all the while.
    """
    for _ in range(_ATTEMPTS):
        seen = rows.load(thread)
        found = Said(rows, seen).messages
        versions = [version for name in found.keys() & gone for version in found[name]]
        quotable = {text for version in versions for text in traces(version.fields)}
        scrub = Scrubber(frozenset(gone), [one.message for one in versions], frozenset(digests), quotable)
        changes: dict[tuple[str, str], Change] = {}
        reports = []
        for stored in _spaces(seen):
            changed, report = _erased(rows, stored, scrub, absorb)
            changes |= changed
            reports.append(report)
        try:
            if changes:
                rows.save(thread, seen, changes)
        except Moved:
            continue
        return _together(len(changes), reports)
    raise DeltaMemError(f"thread {thread!r} goes on while it is to forget; stop its agent, and forget again")


def _together(count: int, reports: Sequence[Replay | None]) -> ThreadReport:
    done = [replay for replay in reports if replay is not None]
    if not done:
        return ThreadReport(count, "untouched", None)
    checked = [replay.exact for replay in done if replay.exact is not None]
    how: How = "replayed" if done[0].replays else "rewound"
    return ThreadReport(count, how, all(checked) if checked else None, any(replay.anew for replay in done))


def _spaces(stored: Sequence[Stored]) -> list[list[Stored]]:
    """Return the checkpoints of each graph and subgraph of the thread."""
    return [list(found) for _, found in groupby(stored, key=lambda one: one.space)]


def _erased(
    rows: CheckpointRows, stored: Sequence[Stored], scrub: Scrubber, absorb: Absorb | None
) -> tuple[dict[tuple[str, str], Change], Replay | None]:
    """Return the changes to one graph's checkpoints, and the replay if the memory is another one now."""
    known: dict[bytes, Item] = {}
    channel = message_channel(stored)
    transcripts = [items_of(rows, one.values.get(channel), known) for one in stored]
    memory = next(iter(memory_channels(stored)), None)
    replay = Replay(scrub.ids, absorb, memory)
    outcomes = replay.run(stored, transcripts)
    rewriter = _Rewriter(replay, replace(scrub, carried=replay.carried), channel, memory)
    changes = {(one.space, one.id): rewriter.change(one, outcomes[one.id]) for one in stored}
    moved = any(
        outcomes[one.id].memory != replay.memory(one, items) for one, items in zip(stored, transcripts, strict=True)
    )
    kept = {address: change for address, change in changes.items() if change}
    return kept, replay if moved else None


@dataclass(frozen=True, slots=True)
class _Rewriter:
    """Say what of a checkpoint is another value now."""

    replay: Replay
    scrub: Scrubber
    messages: str
    memory: str | None

    def change(self, one: Stored, outcome: Outcome) -> Change:
        values = {name: self._value(name, value, outcome) for name, value in one.values.items()}
        if self.memory is not None and self.memory not in values and outcome.memory is not None:
            values[self.memory] = outcome.memory
        writes = {write.key: self._write(one, write, outcome) for write in one.writes}
        old = {write.key: write.value for write in one.writes}
        return Change(
            {name: value for name, value in values.items() if value != one.values.get(name, DROPPED)},
            {key: value for key, value in writes.items() if value != old[key]},
            self.scrub.unsaid(one.metadata),
        )

    def _value(self, name: str, value: Any, outcome: Outcome) -> Any:
        if name == self.memory:
            return DROPPED if outcome.memory is None else outcome.memory
        if self.memory is not None and name == decided_key(self.memory) and outcome.touched:
            return self._decisions(value, outcome)
        if name == self.messages and outcome.touched and self.replay.trims:
            return self.scrub([item.stored for item in outcome.items])
        return self.scrub(value)

    def _decisions(self, value: Any, outcome: Outcome) -> bytes:
        """Keep what policies decided about messages that wait in the window now, and what was kept of others."""
        absorbed = absorbed_by(outcome.memory)
        waiting = {name for item in outcome.items if item.digest not in absorbed for name in names_of(item.message)}
        kept = decided_from_bytes(value).keys() - self.replay.names
        return decided_to_bytes(self.replay.decided, waiting | kept)

    def _write(self, one: Stored, write: Write, outcome: Outcome) -> Any:
        if write.channel != self.memory or not outcome.touched:
            return self.scrub(write.value)
        memory = self.replay.after_call(one, outcome)
        return DROPPED if memory is None else memory
