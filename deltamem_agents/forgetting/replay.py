"""Say what each checkpoint of a thread would hold if some of its messages had never been there."""

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from deltamem_agents._chunks import PROVIDER
from deltamem_agents.decided import Kept, decided_from_bytes, decided_key, names_of
from deltamem_agents.forgetting.absorbed import absorbed_by, forgets_digests, same_memory
from deltamem_agents.forgetting.packed import Extension, fields_of, message_key
from deltamem_agents.forgetting.rows import CheckpointRows, Stored
from deltamem_agents.memory_cell import MEMORY_KEY
from deltamem_agents.messages import to_entries
from deltamem_agents.working_memory import MAGIC

__all__ = ["Absorb", "Item", "Outcome", "Replay", "items_of", "memory_channels", "message_channel"]

Absorb = Callable[[Sequence[BaseMessage], bytes | None, Mapping[bytes, Kept]], bytes | None]
"""Return the memory after a model call with these messages, this memory, and what policies decided about messages;
nothing is answered."""


@dataclass(frozen=True, eq=False)
class Item:
    """Hold one message of a checkpoint, as stored and as an object."""

    stored: Extension
    message: BaseMessage

    @property
    def id(self) -> str:
        """Return the message's id, or what is known of its bytes where it has none."""
        return message_key(self.stored, {"id": self.message.id})

    @cached_property
    def digest(self) -> bytes:
        """Return the identity that the working memory knows the message by."""
        return to_entries([self.message])[0].digest


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what a checkpoint would have held.

    touched: it differs from what it holds. tainted: what it holds has absorbed a message that goes, or may have.
    """

    items: tuple[Item, ...]
    memory: bytes | None
    touched: bool
    tainted: bool = False


def message_channel(stored: Sequence[Stored]) -> str:
    """Return the channel that holds the thread's messages."""
    found = {name for one in stored for name, value in one.values.items() if _is_messages(value)}
    return "messages" if "messages" in found or not found else min(found)


def memory_channels(stored: Sequence[Stored]) -> list[str]:
    """Return the channels that hold working memories."""
    return sorted({n for one in stored for n, v in one.values.items() if isinstance(v, bytes) and v.startswith(MAGIC)})


def items_of(rows: CheckpointRows, value: Any, known: dict[bytes, Item]) -> list[Item]:
    """Return the messages of a channel; those that are known are not made again."""
    found = []
    for stored in value if isinstance(value, list) else ():
        if isinstance(stored, Extension) and fields_of(stored) is not None:
            if stored.data not in known:
                known[stored.data] = Item(stored, rows.message(stored))
            found.append(known[stored.data])
    return found


class Replay:
    """Replay one graph of a thread, checkpoint after checkpoint, without the messages that go.

    carried: what replies carry from now on, where they carry the memory. exact: whether the replay of a call as it was
    gave the memory that it gave; None if no call had to be replayed. trims: absorbed messages leave the checkpoints.
    anew: a memory begins with the messages that are left, since no checkpoint is from before what goes. digests: of
    what goes. names: of decisions about what goes. decided: what policies had decided, by name.

    Each model call that left a reply behind is made again as far as its memory goes: from the messages and the memory
    that it would have found. Without `absorb` a memory that has taken a message in is taken back to the newest one that
    has not; what came after is absorbed again by the thread's next turn.
    """

    def __init__(self, gone: Collection[str], absorb: Absorb | None, channel: str | None) -> None:
        """channel: where the memory is kept; None if replies carry it."""
        self.carried: dict[str, bytes | None] = {}
        self.exact: bool | None = None
        self.trims = False
        self.anew = False
        self._gone = gone
        self._absorb = absorb
        self._channel = channel
        self.digests: set[bytes] = set()
        self.names: set[bytes] = set()
        self.decided: dict[bytes, Kept] = {}
        self._steps: dict[str | None, bytes | None] = {}

    @property
    def replays(self) -> bool:
        """Tell whether memories are replayed, not only taken back."""
        return self._absorb is not None

    def run(self, stored: Sequence[Stored], transcripts: Sequence[Sequence[Item]]) -> dict[str, Outcome]:
        """Return the outcome of each checkpoint by its id; the oldest come first, and so do parents."""
        self.digests = {to_entries([HumanMessage("", id=name)])[0].digest for name in self._gone}
        self.digests |= {item.digest for items in transcripts for item in items if item.id in self._gone}
        going = (item.message for items in transcripts for item in items if item.id in self._gone)
        self.names = self.digests | {name for message in going for name in names_of(message)}
        for one in stored:
            self.decided |= decided_from_bytes(one.values.get(decided_key(self._channel or "")))
        found: dict[str, Outcome] = {}
        before: dict[str, tuple[Stored, Sequence[Item]]] = {}
        for one, items in zip(stored, transcripts, strict=True):
            parent = before.get(one.parent or "")
            self.trims |= parent is not None and bool(self._left(one, items, parent[1])[0])
            before[one.id] = one, items
        first = {item.id: at for at, items in reversed(list(enumerate(transcripts))) for item in items}
        for at, (one, items) in enumerate(zip(stored, transcripts, strict=True)):
            parent = before.get(one.parent or "")
            if parent is None:
                found[one.id] = self._root(one, items, {name for name in self._gone if first.get(name, at) <= at})
            else:
                found[one.id] = self._next(one, items, *parent, found[parent[0].id])
        return found

    def after_call(self, one: Stored, outcome: Outcome) -> bytes | None:
        """Return the memory that a model call at this checkpoint would have left."""
        if one.id not in self._steps:
            self._steps[one.id] = self._call(outcome.items, outcome.memory)
        return self._steps[one.id]

    def memory(self, one: Stored, items: Sequence[Item]) -> bytes | None:
        """Return the memory that a checkpoint holds."""
        if self._channel is not None:
            value = one.values.get(self._channel)
            return value if isinstance(value, bytes) else None
        return self._carried_by(items)

    def _tainted(self, memory: bytes | None, items: Sequence[Item], had: Collection[str]) -> bool:
        """Tell whether a memory has taken in a message that goes, or may have, since it keeps the newest digests alone.

        had: the messages that it may have seen; those that stand after all that it knows wait in the window.
        """
        known = absorbed_by(memory)
        if not self.digests.isdisjoint(known) or not forgets_digests(memory):
            return not self.digests.isdisjoint(known)
        newest = max((at for at, item in enumerate(items) if item.digest in known), default=-1)
        waiting = {item.id for item in items[newest + 1 :]}
        return any(name in had and name not in waiting for name in self._gone)

    def _carried_by(self, items: Sequence[Item]) -> bytes | None:
        for item in reversed(items):
            text = item.message.response_metadata.get(MEMORY_KEY) if isinstance(item.message, AIMessage) else None
            if text is not None:
                return base64.b64decode(text)
        return None

    def _left(self, one: Stored, items: Sequence[Item], earlier: Sequence[Item]) -> tuple[set[str], set[str]]:
        """Return the messages that left the checkpoint: because the memory had absorbed them, and for other reasons."""
        here = {item.id for item in items}
        gone = [item for item in earlier if item.id not in here]
        absorbed = absorbed_by(self.memory(one, items)) if gone else set()
        trimmed = {item.id for item in gone if item.digest in absorbed}
        return trimmed, {item.id for item in gone} - trimmed

    def _root(self, one: Stored, items: Sequence[Item], had: Collection[str]) -> Outcome:
        memory, kept = self.memory(one, items), self._kept(items)
        if not self._tainted(memory, items, had):
            return Outcome(kept, memory, len(kept) < len(items))
        # Nothing older is left, so the thread begins anew with the messages that are.
        self.anew = True
        fresh: bytes | None = None
        for at, item in enumerate(kept):
            if isinstance(item.message, AIMessage):
                before, fresh = fresh, self._call(kept[:at], fresh) if _is_reply(item) else fresh
                self.carried |= {} if self._channel else {item.id: None if fresh == before else fresh}
        return Outcome(kept, fresh, touched=True, tainted=True)

    def _next(
        self, one: Stored, items: Sequence[Item], parent: Stored, earlier: Sequence[Item], past: Outcome
    ) -> Outcome:
        memory = self.memory(one, items)
        old = {item.id for item in earlier}
        new = [item for item in items if item.id not in old]
        absorbed = self._tainted(memory, items, old | {item.id for item in new})
        if not (past.touched or absorbed or any(item.id in self._gone for item in new)):
            return Outcome(tuple(items), memory, touched=False)
        tainted = past.tainted or absorbed
        changed = memory != self.memory(parent, earlier)
        replies = [item for item in new if _is_reply(item) or (changed and isinstance(item.message, AIMessage))]
        kept_replies = [item for item in replies if item.id not in self._gone]
        if changed and replies and one.source == "loop" and self._absorb is not None and self.exact is None:
            made = self._absorb([item.message for item in earlier], self.memory(parent, earlier), self.decided)
            self.exact = same_memory(made, memory)
        if self._absorb is None:
            after = past.memory if tainted else memory
        elif one.source == "loop" and kept_replies:
            after = self.after_call(parent, past)
        else:
            after = past.memory
        if self._channel is None:
            self.carried |= {item.id: None for item in replies}
            if kept_replies and after != past.memory:
                self.carried[kept_replies[-1].id] = after
        return Outcome(self._shown(one, items, earlier, past, after), after, touched=True, tainted=tainted)

    def _shown(
        self, one: Stored, items: Sequence[Item], earlier: Sequence[Item], past: Outcome, memory: bytes | None
    ) -> tuple[Item, ...]:
        """Return the messages that the checkpoint would have had; where absorbed ones leave, that depends on memory."""
        if not self.trims:
            return self._kept(items)
        absorbed, removed = absorbed_by(memory), self._left(one, items, earlier)[1]
        here = {item.id for item in items}
        waiting = [item for item in past.items if item.id not in here and item.id not in removed]
        return tuple(item for item in (*waiting, *self._kept(items)) if item.digest not in absorbed)

    def _kept(self, items: Sequence[Item]) -> tuple[Item, ...]:
        return tuple(item for item in items if item.id not in self._gone)

    def _call(self, items: Sequence[Item], memory: bytes | None) -> bytes | None:
        """Absorb as the model call would have; where nothing was asked, there was none."""
        answered = next((item for item in reversed(items) if item.message.type != "system"), None)
        if self._absorb is None or answered is None or isinstance(answered.message, AIMessage):
            return memory
        return self._absorb([item.message for item in items], memory, self.decided)


def _is_reply(item: Item) -> bool:
    """Tell whether a message is a reply of ChatDeltaMem's."""
    message = item.message
    return isinstance(message, AIMessage) and message.response_metadata.get("model_provider") == PROVIDER


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(x, Extension) and fields_of(x) is not None for x in value)
