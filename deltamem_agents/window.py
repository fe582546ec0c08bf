"""Decide which messages a turn shows, and which of them leave the window. Pure: no text, no tokens, no model.

A message is one Entry. The transcript minus what has been absorbed is the window; when the window is too large, whole
units leave it from the front.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from backbone import WindowOverflowError
from deltamem_agents.working_memory import MAX_DIGESTS

__all__ = ["Entry", "Role", "Selection", "Slice", "TurnPlan", "plan_turn", "select_messages"]

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Entry:
    """Stand for one message: its identity, its role, and the tool calls it makes or answers.

    written: whether the memory is written with it; what is not written still leaves the window like the others.
    """

    digest: bytes
    role: Role
    call_ids: tuple[str, ...] = ()
    written: bool = True


@dataclass(frozen=True, slots=True)
class Selection:
    """Name the messages that a turn looks at, as indices in order.

    repeated: those that were absorbed before and are shown again, because one of them is to be answered; they are not
    written a second time.
    """

    indices: tuple[int, ...]
    repeated: frozenset[int]


@dataclass(frozen=True, slots=True)
class Slice:
    """Name a run of one message's tokens, from start up to, not including, stop."""

    message: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """Say what one turn absorbs and what stays in its prompt.

    passes: the absorbed messages' tokens, cut into passes of at most window_tokens. absorbed: their messages.
    window: the messages that stay. All in the order of the list that was planned for, without system messages.
    """

    passes: tuple[tuple[Slice, ...], ...]
    absorbed: tuple[int, ...]
    window: tuple[int, ...]


def select_messages(entries: Sequence[Entry], digests: Sequence[bytes], *, forgot_digests: bool = False) -> Selection:
    """Pick system messages and whatever has not been absorbed; the newest unit is always in.

    digests are those of the absorbed messages, oldest first. forgot_digests says that older ones are no longer kept:
    then an unknown message that stands before the oldest known ones has been absorbed too, not appeared since.
    """
    once = _first_occurrences(entries)
    absorbed = _absorbed(entries, once, digests, forgot_digests=forgot_digests)
    talk = [index for index in once if entries[index].role != "system"]
    newest = set(_units(entries, talk)[-1]) if talk else set()
    indices = tuple(i for i in once if entries[i].role == "system" or i not in absorbed or i in newest)
    return Selection(indices, frozenset(absorbed & newest))


def plan_turn(
    entries: Sequence[Entry],
    selection: Selection,
    lengths: Mapping[int, int],
    *,
    trailing: int,
    window_tokens: int,
    keep_tokens: int,
    left_out: Collection[int] = (),
) -> TurnPlan:
    """Move the watermark if the window has more than window_tokens tokens.

    lengths: tokens of each selected message. trailing: tokens after the last message (the generation prompt). System
    messages do not count. What stays has at most keep_tokens, but always the newest unit, and everything from the
    newest user message on where that fits. left_out: messages that leave the window without being read again, as if
    they had never been said. Raises WindowOverflowError if the newest unit alone does not fit.
    """
    talk = [index for index in selection.indices if entries[index].role != "system"]
    units = _units(entries, talk)
    sizes = [sum(lengths[index] for index in unit) for unit in units]
    if units and sizes[-1] + trailing > window_tokens:
        raise WindowOverflowError(
            f"the message to answer has {sizes[-1]} tokens with its tool results, and the window holds {window_tokens} "
            f"tokens, {trailing} of which begin the reply; shorten the message or raise window_tokens"
        )
    if sum(sizes) + trailing <= window_tokens:
        return TurnPlan((), (), tuple(talk))
    first = _first_kept(entries, units, sizes, room=window_tokens - trailing, keep_tokens=keep_tokens)
    leaving = units[:first]
    return TurnPlan(
        _passes(leaving, {**lengths, **dict.fromkeys(left_out, 0)}, window_tokens),
        tuple(itertools.chain.from_iterable(leaving)),
        tuple(itertools.chain.from_iterable(units[first:])),
    )


def _first_occurrences(entries: Sequence[Entry]) -> list[int]:
    """Drop repetitions of a message; of the last message, the earlier ones, because it is the one to answer."""
    last = len(entries) - 1
    seen = {entries[last].digest} if entries else set()
    kept = []
    for index, entry in enumerate(entries):
        if index == last or entry.digest not in seen:
            seen.add(entry.digest)
            kept.append(index)
    return kept


def _absorbed(entries: Sequence[Entry], once: list[int], digests: Sequence[bytes], *, forgot_digests: bool) -> set[int]:
    place = {digest: at for at, digest in enumerate(digests)}
    known = [index for index in once if entries[index].digest in place]
    absorbed = set(known)
    # A whole history begins with messages older than any digest kept, and goes on with the oldest of those. A summary
    # put before the newest messages is followed by one of the newer half.
    if forgot_digests and known and place[entries[known[0]].digest] < MAX_DIGESTS // 2:
        absorbed.update(index for index in once if index < known[0])
    return absorbed


def _units(entries: Sequence[Entry], order: Sequence[int]) -> list[list[int]]:
    """Cut messages into units that leave the window whole: an assistant message goes with all its tool results."""
    starts: list[int] = []
    caller: dict[str, int] = {}
    for place, index in enumerate(order):
        entry = entries[index]
        if entry.role != "tool" or not starts:
            starts.append(place)
        else:
            begin = min((caller[call] for call in entry.call_ids if call in caller), default=place - 1)
            while starts[-1] > begin:
                starts.pop()
        if entry.role == "assistant":
            caller.update(dict.fromkeys(entry.call_ids, place))
    return [list(order[begin:end]) for begin, end in itertools.pairwise([*starts, len(order)])]


def _first_kept(
    entries: Sequence[Entry], units: list[list[int]], sizes: list[int], *, room: int, keep_tokens: int
) -> int:
    """Return the first unit that stays in the window."""
    first = len(units) - 1
    asked = next((at for at in range(first, -1, -1) if entries[units[at][0]].role == "user"), first)
    if sum(sizes[asked:]) <= room:
        first = asked
    while first > 0 and sum(sizes[first - 1 :]) <= min(keep_tokens, room):
        first -= 1
    return first


def _passes(units: list[list[int]], lengths: Mapping[int, int], limit: int) -> tuple[tuple[Slice, ...], ...]:
    """Pack whole units into passes of at most `limit` tokens; only a unit that is larger is cut."""
    passes: list[list[Slice]] = []
    room = 0
    for unit in units:
        if room < sum(lengths[index] for index in unit):
            room = 0
        for index in unit:
            start = 0
            while start < lengths[index]:
                if room == 0:
                    passes.append([])
                    room = limit
                stop = min(lengths[index], start + room)
                passes[-1].append(Slice(index, start, stop))
                room -= stop - start
                start = stop
    return tuple(tuple(part) for part in passes)
