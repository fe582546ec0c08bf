"""The window and absorb plan, without text or model."""

import dataclasses
import hashlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbone import MemoryState, WindowOverflowError
from deltamem_agents.window import Entry, Role, TurnPlan, plan_turn, select_messages
from deltamem_agents.working_memory import MAX_DIGESTS, WorkingMemory

WINDOW, KEEP, TRAILING = 60, 20, 3


@dataclasses.dataclass(frozen=True)
class Message:
    """Stand for a message of a transcript: entry and token count."""

    entry: Entry
    length: int


def message(name: str, role: Role, length: int, *call_ids: str) -> Message:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return Message(Entry(digest, role, call_ids), length)


def plan(messages: list[Message], digests: tuple[bytes, ...] = (), **limits: int) -> TurnPlan:
    entries = [m.entry for m in messages]
    selection = select_messages(entries, digests)
    lengths = {index: messages[index].length for index in selection.indices}
    limits = {"window_tokens": WINDOW, "keep_tokens": KEEP, "trailing": TRAILING, **limits}
    return plan_turn(entries, selection, lengths, **limits)


@st.composite
def transcripts(draw: st.DrawFn) -> list[list[Message]]:
    """Draw turns: a user message, perhaps calls with their results, and an answer (the answer may be cut off)."""
    turns: list[list[Message]] = []
    for number in range(draw(st.integers(1, 12))):
        turn = [message(f"{number} user", "user", draw(st.integers(1, 30)))]
        for step in range(draw(st.integers(0, 2))):
            calls = [f"{number}.{step}.{n}" for n in range(draw(st.integers(1, 2)))]
            turn.append(message(f"{number}.{step} calls", "assistant", draw(st.integers(1, 15)), *calls))
            turn.extend(message(f"{call} result", "tool", draw(st.integers(1, 15)), call) for call in calls)
        if draw(st.booleans()):
            turn.append(message(f"{number} answer", "assistant", draw(st.integers(1, 30))))
        turns.append(turn)
    return turns


@st.composite
def views(draw: st.DrawFn, history: list[Message], turn: int) -> list[Message]:
    """Draw what a graph may pass of a history; its last message stays the last."""
    past, last = history[:-1], history[-1]
    kind = draw(st.sampled_from(["full", "trimmed", "subset", "summary", "shuffled", "duplicated", "replayed"]))
    if kind == "trimmed":
        past = past[draw(st.integers(0, len(past))) :]
    elif kind == "subset":
        past = [m for m in past if draw(st.booleans())]
    elif kind == "summary":
        summary = message(f"summary {turn}", draw(st.sampled_from(["user", "system"])), draw(st.integers(1, 30)))
        past = [summary, *past[draw(st.integers(0, len(past))) :]]
    elif kind == "shuffled":
        past = draw(st.permutations(past))
    elif kind == "duplicated":
        past = [m for m in past for _ in range(draw(st.integers(1, 2)))]
    elif kind == "replayed" and past:
        return past[: draw(st.integers(1, len(past)))]
    return [*past, last]


def absorbed_tokens(messages: list[Message], turn: TurnPlan) -> Counter[bytes]:
    """Count the tokens that a plan writes, by message, checking that none is written twice in it."""
    written: Counter[bytes] = Counter()
    for part in turn.passes:
        assert 0 < sum(piece.stop - piece.start for piece in part) <= WINDOW
        for piece in part:
            digest = messages[piece.message].entry.digest
            assert piece.start == written[digest], "a message is written from its beginning, without gaps"
            written[digest] = piece.stop
    return written


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_each_message_is_written_at_most_once_whatever_the_graph_passes(data: Any) -> None:
    """Over many turns of trimmed, summarised, shuffled, doubled and replayed histories, no token is written twice."""
    memory = WorkingMemory(MemoryState.zeros({"layer": (1, 2)}, "f"))
    history: list[Message] = []
    written: Counter[bytes] = Counter()
    lengths: dict[bytes, int] = {}
    for number, turn in enumerate(data.draw(transcripts())):
        history += turn
        seen = data.draw(views(history, number))
        try:
            result = plan(seen, memory.digests)
        except WindowOverflowError:
            continue
        written += absorbed_tokens(seen, result)
        absorbed = [seen[index].entry.digest for index in result.absorbed]
        assert not set(absorbed) & set(memory.digests)
        memory = memory.absorb(memory.state, absorbed, 0)
        lengths |= {m.entry.digest: m.length for m in seen}
        assert all(count <= lengths[digest] for digest, count in written.items())


@settings(max_examples=150, deadline=None)
@given(transcripts())
def test_a_plan_fills_the_window_and_loses_nothing(turns: list[list[Message]]) -> None:
    """What is not absorbed stays in a window that fits, ends with the newest message and parts no calls and results."""
    history = [m for turn in turns for m in turn]
    try:
        result = plan(history)
    except WindowOverflowError:
        return
    assert sorted([*result.absorbed, *result.window]) == list(range(len(history)))
    assert sum(history[index].length for index in result.window) + TRAILING <= WINDOW
    assert result.window[-1] == len(history) - 1
    made_by = {call: at for at, m in enumerate(history) if m.entry.role == "assistant" for call in m.entry.call_ids}
    for at, m in enumerate(history):
        if m.entry.role == "tool":
            assert (at in result.window) == (made_by[m.entry.call_ids[0]] in result.window)


def test_nothing_is_absorbed_while_the_window_holds_everything() -> None:
    """A prompt of exactly window_tokens absorbs nothing; one token more does."""
    history = [message("a", "user", 30), message("b", "assistant", 20), message("c", "user", 7)]
    assert plan(history).absorbed == ()
    assert plan(history, window_tokens=59).absorbed == (0, 1)


def test_the_tail_keeps_at_most_keep_tokens() -> None:
    """When the watermark moves, whole units leave until keep_tokens are left."""
    history = [message(str(n), "user" if n % 2 == 0 else "assistant", 10) for n in range(7)]
    assert plan(history).window == (5, 6)
    assert plan(history, keep_tokens=30).window == (4, 5, 6)


def test_the_question_stays_with_its_tool_results_where_that_fits() -> None:
    """Everything from the newest user message on stays, though it is more than keep_tokens."""
    history = [
        message("old", "user", 30),
        message("question", "user", 15),
        message("call", "assistant", 10, "x"),
        message("result", "tool", 15, "x"),
    ]
    assert plan(history).window == (1, 2, 3)
    assert plan(history, window_tokens=35).window == (2, 3)


def test_a_message_larger_than_the_window_is_an_error_with_both_sizes() -> None:
    """The message to answer must fit: the error names its size and the window's."""
    with pytest.raises(WindowOverflowError, match=r"61 tokens.*holds 60"):
        plan([message("big", "user", 61)])


def test_an_old_message_larger_than_the_window_is_absorbed_in_several_passes() -> None:
    """A message that needs no answer any more is written whole, at most window_tokens a pass."""
    result = plan([message("big", "tool", 150), message("now", "user", 5)])
    assert [[(s.start, s.stop) for s in part] for part in result.passes] == [[(0, 60)], [(60, 120)], [(120, 150)]]


def test_an_absorbed_message_that_is_asked_again_is_shown_but_not_written() -> None:
    """The newest unit is always in the prompt; known messages in it are marked as repeated."""
    history = [message("a", "user", 10), message("b", "assistant", 10)]
    selection = select_messages([m.entry for m in history], (history[0].entry.digest, history[1].entry.digest))
    assert selection.indices == (1,)
    assert selection.repeated == {1}


def test_system_messages_are_always_selected_and_never_absorbed() -> None:
    """System messages stand outside the window: they neither count nor leave."""
    history = [
        message("s", "system", 500),
        message("a", "user", 40),
        message("t", "system", 1),
        message("b", "user", 40),
    ]
    result = plan(history)
    assert (result.absorbed, result.window) == ((1,), (3,))


@pytest.mark.parametrize(("first_known", "absorbed"), [(0, True), (MAX_DIGESTS - 4, False)])
def test_unknown_messages_before_the_oldest_digests_count_as_absorbed(first_known: int, absorbed: bool) -> None:
    """With digests forgotten, a whole history is not written again, and a summary before recent messages is read."""
    known = [message(f"old {n}", "user", 1) for n in range(MAX_DIGESTS)]
    front, new = message("front", "user", 5), message("new", "user", 5)
    view = [front, *known[first_known:], new]
    selection = select_messages([m.entry for m in view], tuple(m.entry.digest for m in known), forgot_digests=True)
    assert (0 not in selection.indices) == absorbed
    assert selection.indices[-1] == len(view) - 1
