"""The ready-made policies, each on what it is for."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import SequenceMatcher

import pytest
from pydantic import ValidationError

from deltamem_agents.policy import (
    Budget,
    LegalHold,
    MemoryPolicy,
    Novelty,
    PersonalData,
    PolicyChain,
    PolicyContext,
    PolicyMessage,
    Retain,
    Roles,
    Secrets,
    Signals,
    TimeToLive,
    Trust,
)
from deltamem_agents.retention import Retention

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@dataclass(frozen=True)
class Stored:
    id: str = "r"
    text: str = "text"
    source: str = "user"
    trust: Trust = Trust.HIGH
    tags: tuple[str, ...] = ()
    created: datetime = field(default=NOW)
    expires: datetime | None = None


def test_roles_choose_the_tiers_by_source() -> None:
    """A source is written to the tiers that list it; tool:* is every tool."""
    rule = Roles(working=("user", "tool:grep"), archive=("tool:*",))
    written = {
        source: (decision.working, decision.archive)
        for source in ("user", "agent", "tool:grep", "tool:ls")
        for decision in [PolicyChain([rule]).retain(PolicyMessage("x", source))]
    }
    assert written == {
        "user": (True, False),
        "agent": (False, False),
        "tool:grep": (True, True),
        "tool:ls": (False, True),
    }


def test_the_shortest_time_to_live_counts() -> None:
    """Times for sources and tags bound the general one; without any, a record lives forever."""
    rule = TimeToLive(seconds=100, sources={"tool:*": 10}, tags={"draft": 5}, decay=0.5)
    assert rule.retain(PolicyMessage("x"), Signals()).ttl == timedelta(seconds=100)
    assert rule.retain(PolicyMessage("x", "tool:ls"), Signals()).ttl == timedelta(seconds=10)
    assert rule.retain(PolicyMessage("x", "tool:ls", tags=("draft",)), Signals()).ttl == timedelta(seconds=5)
    assert rule.retain(PolicyMessage("x"), Signals()).decay == 0.5
    forever = TimeToLive().retain(PolicyMessage("x"), Signals())
    assert (forever.ttl, forever.decay) == (None, None)


def test_an_expired_record_is_not_shown() -> None:
    """A record whose time is over is withheld even if nothing has erased it yet."""
    rule = TimeToLive(seconds=60)
    for seconds, action in ((59, "show"), (61, "withhold")):
        context = PolicyContext(now=NOW + timedelta(seconds=seconds))
        assert rule.present(Stored(), context).action == action


def test_a_text_that_was_said_again_is_shown_until_its_new_end() -> None:
    """The record's own end counts, not the time since it was first said."""
    rule = TimeToLive(seconds=60)
    again = Stored(expires=NOW + timedelta(seconds=90))
    for seconds, action in ((61, "show"), (91, "withhold")):
        assert rule.present(again, PolicyContext(now=NOW + timedelta(seconds=seconds))).action == action


@pytest.mark.parametrize("needs", [frozenset(), frozenset({"similarity"})])
def test_a_tag_of_an_earlier_policy_sets_the_time_to_live(needs: frozenset[str]) -> None:
    """Each policy sees what those before it have tagged, also where some need signals and others none."""

    class Drafts(MemoryPolicy):
        def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
            return Retain(tags=("draft",), reason="a draft")

    class Needing(Drafts):
        @property
        def needs(self) -> frozenset[str]:
            return needs

    chain = PolicyChain([Needing(), TimeToLive(seconds=100, tags={"draft": 5})], timeout=None)
    assert chain.retain(PolicyMessage("x")).ttl == timedelta(seconds=5)
    retention = Retention(PolicyChain([Needing(), Novelty(), TimeToLive(tags={"draft": 5})], timeout=None))
    assert retention.decision(PolicyMessage("x"), None, {}).ttl == timedelta(seconds=5)


def test_repeated_text_is_written_once() -> None:
    """Two hundred turns that say the same five things leave five records and as many writes."""
    chain = PolicyChain([Novelty(similarity=0.95, surprise=0.1)], timeout=None)
    records: list[str] = []
    learned: set[str] = set()
    writes = 0
    for turn in range(200):
        text = f"the build of service {'abcde'[turn % 5] * 9} is green"
        similarity = max((SequenceMatcher(None, text, old).ratio() for old in records), default=0.0)
        surprise = 0.01 if text in learned else 0.9
        decision = chain.retain(PolicyMessage(text), Signals(surprise=surprise, similarity=similarity))
        if decision.archive:
            records.append(text)
        if decision.working:
            learned.add(text)
            writes += 1
    assert (len(records), writes) == (5, 5)


def test_unknown_signals_decide_nothing() -> None:
    """Before there is an archive or a memory, everything is new."""
    assert not Novelty(similarity=0.01, surprise=100).retain(PolicyMessage("x"), Signals()).restricts()


def test_a_message_beyond_the_whole_budget_is_not_archived() -> None:
    """What could not fit if all else went is refused."""
    rule = Budget(bytes=4)
    assert rule.retain(PolicyMessage("1234"), Signals()).archive
    assert not rule.retain(PolicyMessage("12345"), Signals()).archive


def test_a_legal_hold_keeps_a_record() -> None:
    """A tagged record is kept whoever asks; others go."""
    chain = PolicyChain([LegalHold(tags=("case-7",))])
    assert chain.forget(Stored(tags=("case-7", "x"))).action == "keep"
    assert chain.forget(Stored(tags=("x",))).action == "erase"


def test_secrets_are_redacted_when_kept_and_when_shown() -> None:
    """The rule applies redact_secrets at both ends."""
    chain = PolicyChain([Secrets()])
    text = "DB_PASSWORD=letmein123"
    assert chain.retain(PolicyMessage(text)).text == "DB_PASSWORD=[redacted:password]"
    assert chain.present(Stored(text=text)).text == "DB_PASSWORD=[redacted:password]"
    assert chain.retain(PolicyMessage("nothing here")).text is None


def test_personal_data_is_found_by_langchains_detectors() -> None:
    """Emails, cards, and addresses of machines go; kinds that are not asked for stay."""
    text = "mail ana@example.com from 10.0.0.7, card 4111 1111 1111 1111, see https://example.com/x"
    kept = PolicyChain([PersonalData()]).retain(PolicyMessage(text)).text
    assert kept == "mail [redacted:email] from [redacted:ip], card [redacted:credit_card], see https://example.com/x"
    only = PolicyChain([PersonalData(kinds=("url",))])
    assert only.retain(PolicyMessage(text)).text == text.replace("https://example.com/x", "[redacted:url]")
    assert only.present(Stored(text=text)).action == "mask"
    assert only.present(Stored(text="nothing")).action == "show"


def test_a_question_without_secrets_is_not_called_one_that_found_nothing() -> None:
    """The log says that nothing had to be redacted; "nothing found" would read as the result of the search."""
    assert PolicyChain([Secrets()]).retrieve("How do we run the tests?").reason == "nothing to redact"


@pytest.mark.parametrize("options", [{"similarity": 0}, {"surprise": -1}, {"sirprise": 1}])
def test_options_that_cannot_work_are_refused(options: dict[str, float]) -> None:
    """A rule's options are checked when it is made."""
    with pytest.raises(ValidationError):
        Novelty(**options)
