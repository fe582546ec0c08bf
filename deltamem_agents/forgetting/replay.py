"""Say what each checkpoint of a thread would hold if some of its messages had never been there."""

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from deltamem_agents._chunks import PROVIDER
from deltamem_agents.decided import Kept, decided_from_bytes, decided_key
from deltamem_agents.forgetting.packed import Extension, fields_of
from deltamem_agents.forgetting.rows import CheckpointRows, Stored
from deltamem_agents.memory_cell import MEMORY_KEY
from deltamem_agents.messages import to_entries
from deltamem_agents.working_memory import WorkingMemory

__all__ = ["Absorb", "Item", "Outcome", "Replay", "absorbed_by", "items_of", "memory_channels", "message_channel"]

Absorb = Callable[[Sequence[BaseMessage], bytes | None, Mapping[bytes, Kept]], bytes | None]
"""Return the memory after a model call with these messages, this memory, and what policies decided about messages;
nothing is answered."""

_MAGIC: Final = b"DELTAMWM"
_TOLERANCE: Final = 1e-5


@dataclass(frozen=True, eq=False)
class Item:
    """Hold one message of a checkpoint, as stored and as an object."""

    stored: Extension
    message: BaseMessage

    @property
    def id(self) -> str:
        """Return the message's id."""
        return self.message.id or ""

    @cached_property
    def digest(self) -> bytes:
        """Return the identity that the working memory knows the message by."""
        return to_entries([self.message])[0].digest


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what a checkpoint would have held.

    touched: it differs from what it holds. tainted: what it holds has absorbed a message that goes.
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
    return sorted({n for one in stored for n, v in one.values.items() if isinstance(v, bytes) and v.startswith(_MAGIC)})


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
    digests: of what goes. decided: what policies had decided, by the digests of messages.

    Each model call that left a reply behind is made again as far as its memory goes: from the messages and the memory
    that it would have found. Without `absorb` a memory that has taken a message in is taken back to the newest one that
    has not; what came after is absorbed again by the thread's next turn.
    """

    def __init__(self, gone: Collection[str], absorb: Absorb | None, channel: str | None) -> None:
        """channel: where the memory is kept; None if replies carry it."""
        self.carried: dict[str, bytes | None] = {}
        self.exact: bool | None = None
        self.trims = False
        self._gone = gone
        self._absorb = absorb
        self._channel = channel
        self.digests: set[bytes] = set()
        self.decided: dict[bytes, Kept] = {}
        self._steps: dict[str | None, bytes | None] = {}

    @property
    def replays(self) -> bool:
        """Tell whether memories are replayed, not only taken back."""
        return self._absorb is not None

    def run(self, stored: Sequence[Stored], transcripts: Sequence[Sequence[Item]]) -> dict[str, Outcome]:
        """Return the outcome of each checkpoint by its id; the oldest come first, and so do parents."""
        self.digests = {to_entries([HumanMessage("", id=name)])[0].digest for name in self._gone}
        for one in stored:
            self.decided |= decided_from_bytes(one.values.get(decided_key(self._channel or "")))
        found: dict[str, Outcome] = {}
        before: dict[str, tuple[Stored, Sequence[Item]]] = {}
        for one, items in zip(stored, transcripts, strict=True):
            parent = before.get(one.parent or "")
            self.trims |= parent is not None and bool(self._left(one, items, parent[1])[0])
            before[one.id] = one, items
        for one, items in zip(stored, transcripts, strict=True):
            parent = before.get(one.parent or "")
            if parent is None:
                found[one.id] = self._root(one, items)
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

    def has_absorbed(self, memory: bytes | None) -> bool:
        """Tell whether a memory has taken in a message that goes."""
        return not self.digests.isdisjoint(absorbed_by(memory))

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

    def _root(self, one: Stored, items: Sequence[Item]) -> Outcome:
        memory, kept = self.memory(one, items), self._kept(items)
        if not self.has_absorbed(memory):
            return Outcome(kept, memory, len(kept) < len(items))
        # Nothing older is left, so the thread begins anew with the messages that are.
        fresh: bytes | None = None
        for at, item in enumerate(kept):
            if self._absorb is not None and _is_reply(item):
                fresh = self._call(kept[:at], fresh)
        return Outcome(kept, fresh, touched=True, tainted=True)

    def _next(
        self, one: Stored, items: Sequence[Item], parent: Stored, earlier: Sequence[Item], past: Outcome
    ) -> Outcome:
        memory = self.memory(one, items)
        old = {item.id for item in earlier}
        new = [item for item in items if item.id not in old]
        touched = past.touched or any(item.id in self._gone for item in new) or self.has_absorbed(memory)
        if not touched:
            return Outcome(tuple(items), memory, touched=False)
        tainted = past.tainted or self.has_absorbed(memory)
        changed = memory != self.memory(parent, earlier)
        replies = [item for item in new if _is_reply(item) or (changed and isinstance(item.message, AIMessage))]
        kept_replies = [item for item in replies if item.id not in self._gone]
        if changed and replies and one.source == "loop" and self._absorb is not None and self.exact is None:
            made = self._absorb([item.message for item in earlier], self.memory(parent, earlier), self.decided)
            self.exact = _equal(made, memory)
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


def absorbed_by(memory: bytes | None) -> set[bytes]:
    """Return the digests of what a memory has absorbed, as far as it keeps them."""
    return set() if memory is None else set(WorkingMemory.from_bytes(memory).digests)


def _is_reply(item: Item) -> bool:
    """Tell whether a message is a reply of ChatDeltaMem's."""
    message = item.message
    return isinstance(message, AIMessage) and message.response_metadata.get("model_provider") == PROVIDER


def _equal(one: bytes | None, other: bytes | None) -> bool:
    """Tell whether two memories are the same but for what another machine rounds otherwise."""
    if one is None or other is None:
        return one is other
    first, second = WorkingMemory.from_bytes(one), WorkingMemory.from_bytes(other)
    layers = second.state.layers
    close = all((layer - layers[name]).abs().max() < _TOLERANCE for name, layer in first.state.layers.items())
    return first.digests == second.digests and close


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(x, Extension) and fields_of(x) is not None for x in value)
