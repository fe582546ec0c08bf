"""Policies in order: the strictest decision holds, and a policy that fails lets nothing through."""

import asyncio
import inspect
import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import ValidationError

from backbone import ConfigError
from deltamem_agents.policy import (
    Decision,
    Forget,
    MemoryPolicy,
    PolicyChain,
    PolicyContext,
    PolicyMessage,
    Present,
    RecordLike,
    RedactedSpan,
    Retain,
    Retrieve,
    Secrets,
    Signals,
    Trust,
    describe,
)

HOOKS = ("retain", "retrieve", "present", "forget")


@dataclass(frozen=True)
class Stored:
    """A record as an archive would have it."""

    id: str = "r1"
    text: str = "we write tests first"
    source: str = "user"
    trust: Trust = Trust.HIGH
    tags: tuple[str, ...] = ()
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    expires: datetime | None = None


class Fixed(MemoryPolicy):
    """Answer every hook with what it was given."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        return self.answers.get("retain", Retain(reason="fine"))

    def retrieve(self, query: str, context: PolicyContext) -> Retrieve:
        return self.answers.get("retrieve", Retrieve(reason="fine"))

    def present(self, record: RecordLike, context: PolicyContext) -> Present:
        return self.answers.get("present", Present(reason="fine"))

    def forget(self, record: RecordLike, context: PolicyContext) -> Forget:
        return self.answers.get("forget", Forget(reason="fine"))


class Broken(MemoryPolicy):
    """Raise from every hook, with the text in the message."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        raise RuntimeError(message.text)

    async def retrieve(self, query: str, context: PolicyContext) -> Retrieve:
        raise RuntimeError(query)

    def present(self, record: RecordLike, context: PolicyContext) -> Present:
        raise RuntimeError(record.text)

    async def forget(self, record: RecordLike, context: PolicyContext) -> Forget:
        raise RuntimeError(record.text)


class Hanging(MemoryPolicy):
    """Never answer, until the test lets go."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        self.gate.wait(60)
        return Retain(reason="too late")

    async def retrieve(self, query: str, context: PolicyContext) -> Retrieve:
        await asyncio.sleep(60)
        return Retrieve(reason="too late")

    def present(self, record: RecordLike, context: PolicyContext) -> Present:
        self.gate.wait(60)
        return Present(reason="too late")

    async def forget(self, record: RecordLike, context: PolicyContext) -> Forget:
        await asyncio.sleep(60)
        return Forget(reason="too late")


class Wrong(MemoryPolicy):
    """Answer with something else."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Any:
        return True

    def retrieve(self, query: str, context: PolicyContext) -> Any:
        return None

    def present(self, record: RecordLike, context: PolicyContext) -> Any:
        return Present(action="mask", redactions=(span(0, 10_000),), reason="beyond the text")

    def forget(self, record: RecordLike, context: PolicyContext) -> Any:
        return Present(reason="of another hook")


def span(start: int, end: int, placeholder: str = "#") -> RedactedSpan:
    return RedactedSpan(kind="test", start=start, end=end, placeholder=placeholder)


def ask(chain: PolicyChain, hook: str, *, asynchronous: bool = False) -> Any:
    """Ask one hook about an example."""
    arguments: dict[str, tuple[object, ...]] = {
        "retain": (PolicyMessage("we write tests first"),),
        "retrieve": ("how do we test?",),
        "present": (Stored(),),
        "forget": (Stored(),),
    }
    if asynchronous:
        return asyncio.run(getattr(chain, f"a{hook}")(*arguments[hook]))
    return getattr(chain, hook)(*arguments[hook])


def is_closed(decision: Decision) -> bool:
    return (
        (isinstance(decision, Retain) and not decision.working and not decision.archive)
        or (isinstance(decision, Retrieve) and not decision.allowed)
        or (isinstance(decision, Present) and decision.action == "withhold")
        or (isinstance(decision, Forget) and decision.action == "keep")
    )


RETAINS = st.builds(
    Retain,
    reason=st.just("drawn"),
    working=st.booleans(),
    archive=st.booleans(),
    quarantine=st.booleans(),
    ttl=st.none() | st.integers(0, 9).map(lambda seconds: timedelta(seconds=seconds)),
    decay=st.none() | st.floats(0, 1),
    trust=st.none() | st.sampled_from(Trust),
    tags=st.lists(st.sampled_from(["a", "b", "c"]), max_size=2).map(tuple),
)


@given(st.lists(RETAINS, min_size=1, max_size=5))
def test_the_strictest_retention_is_field_by_field(decisions: list[Retain]) -> None:
    """All must allow a write, one is enough for quarantine, the least of times, decays and trusts counts."""
    got = PolicyChain([Fixed(retain=d) for d in decisions], timeout=None).retain(PolicyMessage("x"))
    quarantine = any(d.quarantine for d in decisions)
    assert got.working == (all(d.working for d in decisions) and not quarantine)
    assert got.archive == all(d.archive for d in decisions)
    assert got.quarantine == quarantine
    for name in ("ttl", "decay", "trust"):
        assert getattr(got, name) == min((v for d in decisions if (v := getattr(d, name)) is not None), default=None)
    assert set(got.tags) == {tag for d in decisions for tag in d.tags}
    assert [part.working for part in got.parts] == [d.working for d in decisions]


def test_the_strictest_search_presentation_and_erasure() -> None:
    """Filters meet, the smallest bounds count; quarantine is above withhold, mask and show; a hold is above erasing."""
    chain = PolicyChain([
        Fixed(
            retrieve=Retrieve(k=9, budget=50, filters={"source": frozenset({"user", "web"})}, reason="a"),
            present=Present(action="mask", reason="a"),
        ),
        Fixed(
            retrieve=Retrieve(k=4, filters={"source": frozenset({"user"}), "tags": frozenset({"x"})}, reason="b"),
            present=Present(action="withhold", reason="b"),
            forget=Forget(action="keep", reason="held"),
        ),
        Fixed(),
    ])  # fmt: skip
    found = chain.retrieve("q")
    assert (found.allowed, found.k, found.budget) == (True, 4, 50)
    assert found.filters == {"source": {"user"}, "tags": {"x"}}
    assert ask(chain, "present").action == "withhold"
    assert (ask(chain, "forget").action, ask(chain, "forget").reason) == ("keep", "held")
    quarantining = PolicyChain([*chain.policies, Fixed(present=Present(action="quarantine", reason="c"))])
    assert ask(quarantining, "present").action == "quarantine"


def test_reasons_and_names_are_those_of_the_policies_that_restrict() -> None:
    """A reader of the decision sees who objected and why; what did not restrict is in the parts."""
    chain = PolicyChain([Fixed(), Fixed(retain=Retain(working=False, reason="not this one")), Secrets()])
    decision = chain.retain(PolicyMessage("hello"))
    assert (decision.reason, decision.policy) == ("not this one", "Fixed")
    assert [part.policy for part in decision.parts] == ["Fixed", "Fixed", "secrets"]


@pytest.mark.parametrize("hook", HOOKS)
def test_without_policies_nothing_is_restricted(hook: str) -> None:
    """An empty chain, and a policy that overrides nothing, let everything pass."""
    for policies in ([], [MemoryPolicy()]):
        decision = ask(PolicyChain(policies), hook)
        assert not decision.restricts()
        assert isinstance(decision, Decision)


@pytest.mark.parametrize("timeout", [0.2, None])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_policy_that_raises_fails_closed(
    hook: str, asynchronous: bool, timeout: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is written, found, shown or erased; the log names policy and error, and quotes nothing."""
    with caplog.at_level(logging.WARNING):
        decision = ask(PolicyChain([Fixed(), Broken()], timeout=timeout), hook, asynchronous=asynchronous)
    assert is_closed(decision)
    assert "Broken failed with RuntimeError" in decision.reason
    assert "Broken" in caplog.text
    assert "test" not in caplog.text.replace("test_", "")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_policy_that_hangs_fails_closed(hook: str, asynchronous: bool) -> None:
    """After its timeout a hook counts as failed, and the caller goes on."""
    gate = threading.Event()
    try:
        begin = time.monotonic()
        decision = ask(PolicyChain([Hanging(gate)], timeout=0.05), hook, asynchronous=asynchronous)
        assert time.monotonic() - begin < 30
    finally:
        gate.set()
    assert is_closed(decision)
    assert "TimeoutError" in decision.reason


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_policy_that_answers_nonsense_fails_closed(hook: str, asynchronous: bool) -> None:
    """Another type, the decision of another hook, and a span beyond the text are failures."""
    assert is_closed(ask(PolicyChain([Wrong()]), hook, asynchronous=asynchronous))


def test_later_policies_see_the_redacted_text() -> None:
    """What an early policy replaced is not shown to the ones after it, and is what is kept."""
    seen: list[str] = []

    class Listening(MemoryPolicy):
        def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
            seen.append(message.text)
            return Retain(redactions=(span(0, 3),), reason="heard")

        def present(self, record: RecordLike, context: PolicyContext) -> Present:
            seen.append(record.text)
            return Present(reason=f"{record.id} {record.source} {record.trust} {record.tags} {record.created.year > 0}")

    chain = PolicyChain([Secrets(), Listening()])
    kept = chain.retain(PolicyMessage("the password is hunter2"))
    shown = chain.present(Stored(text="the password is hunter2"))
    assert seen == ["the password is [redacted:password]"] * 2
    assert kept.text == "# password is [redacted:password]"
    assert (shown.action, shown.text) == ("mask", "the password is [redacted:password]")
    assert chain.retain(PolicyMessage("the end")).text == "# end"


def test_overlapping_redactions_leave_nothing_between() -> None:
    """Spans that overlap are replaced once, from the first start to the last end."""
    decision = Retain(redactions=(span(2, 6, "A"), span(4, 8, "B"), span(2, 3, "C")), reason="x")
    assert PolicyChain([Fixed(retain=decision)]).retain(PolicyMessage("0123456789")).text == "01A89"


def test_hooks_see_namespace_run_and_signals() -> None:
    """A policy can decide by whose memory it is, by the run, and by what δ-mem measures."""

    class Asking(MemoryPolicy):
        async def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
            context = signals.context
            return Retain(reason=f"{context.namespace} {context.run['user']} {signals.surprise} {signals.gate}")

    signals = Signals(surprise=0.5, gate=0.25, context=PolicyContext(("team", "a"), run={"user": "bob"}))
    expected = "('team', 'a') bob 0.5 0.25"
    assert PolicyChain([Asking()]).retain(PolicyMessage("x"), signals).reason == expected
    assert asyncio.run(PolicyChain([Asking()]).aretain(PolicyMessage("x"), signals)).reason == expected
    assert inspect.iscoroutinefunction(Asking.retain)


async def test_a_synchronous_chain_works_inside_a_running_loop() -> None:
    """Graph nodes that are synchronous run in event loops too; hooks that are asynchronous get a loop of their own."""
    assert is_closed(PolicyChain([Broken()], timeout=None).retrieve("q"))
    assert is_closed(PolicyChain([Broken()]).retrieve("q"))


@pytest.mark.parametrize("policy", [[Secrets()], (), "secrets", Secrets])
def test_what_is_no_policy_is_refused(policy: Any) -> None:
    """A list of policies, or a class, is an error that says what is expected, and never no policy at all."""
    with pytest.raises(ConfigError, match=f"a PolicyChain of several, or None; got {type(policy).__name__}"):
        PolicyChain.of(policy)
    assert PolicyChain.of(None).policies == ()
    assert len(PolicyChain.of(Secrets()).policies) == 1


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_that_cannot_be_is_refused(timeout: float) -> None:
    """A timeout is above zero, or None."""
    with pytest.raises(ConfigError, match="above 0"):
        PolicyChain([], timeout=timeout)


@pytest.mark.parametrize("bad", [{"reason": ""}, {}, {"reason": "x", "decay": 2}, {"reason": "x", "colour": "red"}])
def test_a_decision_needs_a_reason_and_valid_fields(bad: dict[str, Any]) -> None:
    """Decisions are checked when they are made."""
    with pytest.raises(ValidationError):
        Retain(**bad)


def test_messages_of_langchain_are_described() -> None:
    """The source tells user, agent, system and each tool apart; derived trust is carried."""
    messages = [
        HumanMessage("a", id="1"),
        AIMessage("b"),
        SystemMessage("c"),
        ToolMessage("d", tool_call_id="x", name="grep"),
        ToolMessage("e", tool_call_id="x"),
    ]
    described = [describe(message, trust=Trust.LOW) for message in messages]
    assert [m.source for m in described] == ["user", "agent", "system", "tool:grep", "tool:unknown"]
    assert [m.role for m in described] == ["user", "assistant", "system", "tool", "tool"]
    assert (described[0].id, described[0].text, described[0].trust) == ("1", "a", Trust.LOW)


@pytest.mark.parametrize("wrong", [None, PolicyChain([]), "secrets"])
def test_what_is_no_policy_is_refused_in_a_chain(wrong: Any) -> None:
    """Also a chain: its policies are named one after the other."""
    with pytest.raises(ConfigError, match="takes MemoryPolicy objects"):
        PolicyChain([wrong])
