"""A thread that has forgotten a turn holds what a thread holds that never had it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from langchain_core.messages import AIMessage, HumanMessage

from deltamem_agents import (
    ChatDeltaMem,
    HybridMemory,
    MemoryStore,
    memory_from,
    open_checkpointer,
    use_memory,
    window,
    working_memory,
)
from deltamem_agents.decided import decided_from_bytes, said_of
from deltamem_agents.forgetting.histories import erase_from_thread
from deltamem_agents.forgetting.replaying import absorber
from deltamem_agents.forgetting.savers import rows_of
from deltamem_agents.policy import MemoryPolicy, PolicyMessage, Retain, Signals
from tests.deltamem_agents.forgetting.conftest import SCRIPT, carrying, scripted, talk

EVERY = range(len(SCRIPT))
SMALL = {"window_tokens": 200, "keep_tokens": 70, "max_tokens": 1}
Make = Callable[..., ChatDeltaMem]


def config(thread: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread}}


def ids(values: dict[str, Any]) -> list[str]:
    return [message.id for message in values["messages"]]


def without(turn: int) -> list[int]:
    return [number for number in EVERY if number != turn]


def assert_same(graph: Any, one: str, other: str) -> None:
    """Two threads have the same messages, and memories that are equal to 1e-5."""
    first, second = (graph.get_state(config(thread)).values for thread in (one, other))
    assert ids(first) == ids(second)
    left, right = memory_from(first), memory_from(second)
    assert left is not None
    assert right is not None
    assert left.digests == right.digests
    assert (left.turns, left.messages, left.tokens) == (right.turns, right.messages, right.tokens)
    for name, layer in left.state.layers.items():
        torch.testing.assert_close(layer, right.state.layers[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("adapter", ["tsw", "ssw", "msw"])
def test_the_memory_is_that_of_a_thread_that_never_had_the_turn(adapter: str) -> None:
    """For each bundled adapter: restore, replay, and nothing is left to tell the threads apart."""
    model = ChatDeltaMem(adapter=adapter, **SMALL)
    replies: dict[str, AIMessage] = {}
    with open_checkpointer("memory://") as saver:
        graph = scripted(model, replies, saver)
        talk(graph, replies, "all", EVERY)
        talk(graph, replies, "never", without(2))
        before = memory_from(graph.get_state(config("all")).values)
        assert before is not None
        assert before.messages > 6  # the turn has left the window
        report = erase_from_thread(rows_of(saver), "all", {"u2", "a2"}, absorber(model))
        assert (report.memory, report.exact) == ("replayed", True)
        assert_same(graph, "all", "never")


class NothingOfTurnFour(MemoryPolicy):
    """Keep one turn out of the working memory."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        return Retain(working="turn 4" not in message.text, reason="turn 4")


def test_a_replay_writes_what_policies_had_decided(make_model: Make) -> None:
    """What a policy kept out of the memory stays out when the rest is replayed."""
    model = make_model(**SMALL)
    replies: dict[str, AIMessage] = {}
    with open_checkpointer("memory://") as saver:
        graph = scripted(model, replies, saver, policy=NothingOfTurnFour())
        talk(graph, replies, "all", EVERY)
        talk(graph, replies, "never", without(2))
        report = erase_from_thread(rows_of(saver), "all", {"u2", "a2"}, absorber(model))
        assert (report.memory, report.exact) == ("replayed", True)
        assert_same(graph, "all", "never")
        kept = [graph.get_state(config(name)).values["delta_mem_decided"] for name in ("all", "never")]
        mine, theirs = (decided_from_bytes(value) for value in kept)
        assert theirs.items() <= mine.items()
        assert mine.keys() <= {one.name for one in said_of(graph.get_state(config("never")).values["messages"])}
        free = scripted(model, replies, saver)
        talk(free, replies, "free", without(2))
        ruled, all_written = (memory_from(graph.get_state(config(name)).values) for name in ("never", "free"))
        assert ruled is not None
        assert all_written is not None
        assert ruled.state.distance(all_written.state) > 0


def test_a_turn_that_only_absorbs_leaves_the_memory_of_a_turn_that_answers(make_model: Make) -> None:
    """absorb_only changes what is said, which is nothing, and not what is remembered."""
    model = make_model(**SMALL)
    messages = [message for said, answered in SCRIPT[:4] for message in (HumanMessage(said), AIMessage(answered))]
    found = []
    for only in (False, True):
        with use_memory(absorb_only=only) as cell:
            reply = model.invoke([*messages, HumanMessage("yes")])
        assert (reply.text == "") == only
        found.append(cell.out)
    assert found[0] is not None
    assert found[0] == found[1]


@pytest.mark.parametrize("turn", [0, 1, 4, 8])
@pytest.mark.parametrize("trim", [False, True])
def test_every_checkpoint_is_one_that_the_other_thread_has_had(
    make_model: Make, tmp_path: Any, turn: int, trim: bool
) -> None:
    """Time travel after forgetting reaches every older checkpoint, each without the turn."""
    model = make_model(**SMALL)
    replies: dict[str, AIMessage] = {}
    with open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver:
        graph = scripted(model, replies, saver, trim=trim)
        talk(graph, replies, "all", EVERY)
        talk(graph, replies, "never", without(turn))
        erase_from_thread(rows_of(saver), "all", {f"u{turn}", f"a{turn}"}, absorber(model))
        assert_same(graph, "all", "never")
        mine = [(ids(one.values), memory_from(one)) for one in graph.get_state_history(config("all")) if one.values]
        theirs = {
            tuple(ids(one.values)): memory_from(one) for one in graph.get_state_history(config("never")) if one.values
        }
        for names, memory in mine:
            if tuple(names) not in theirs:
                assert names == []
                continue
            other = theirs[tuple(names)]
            assert (memory is None) == (other is None)
            if memory is not None and other is not None:
                assert memory.digests == other.digests


@pytest.mark.parametrize("make_graph", [scripted, carrying])
def test_what_may_have_been_absorbed_long_ago_counts_as_absorbed(
    make_model: Make, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, make_graph: Callable[..., Any]
) -> None:
    """Where older checkpoints are gone and digests are forgotten, the memory begins anew, and the receipt says so."""
    for module in (working_memory, window):
        monkeypatch.setattr(module, "MAX_DIGESTS", 4)
    model = make_model(**SMALL)
    replies: dict[str, AIMessage] = {}
    with (
        MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as store,
        open_checkpointer("memory://") as saver,
        HybridMemory(store, namespace=("ann",), checkpointer=saver, model=model) as memory,
    ):
        graph = make_graph(model, replies, saver)
        talk(graph, replies, "all", EVERY)
        talk(graph, replies, "never", without(0))
        before = memory_from(graph.get_state(config("all")).values)
        assert before is not None
        assert before.forgot_digests
        rows = rows_of(saver)
        rows.remove("all", [(one.space, one.id) for one in rows.load("all")[:-1]])
        receipt = memory.forget(ids=["u0", "a0"], thread="all", reason="asked")
        assert receipt.complete
        assert "1 begun anew with the messages that are left" in receipt.tiers["working_memory"].note
        assert_same(graph, "all", "never")
        # What waits in the window has not been absorbed.
        receipt = memory.forget(ids=["u8"], thread="all", reason="asked")
        assert (receipt.tiers["checkpoints"].erased, receipt.tiers["working_memory"].erased) == (1, 0)
        # Without a model nothing can be replayed.
        memory.model = None
        memory.forget(ids=["u1"], thread="all", reason="asked")
        assert memory_from(graph.get_state(config("all")).values) is None
