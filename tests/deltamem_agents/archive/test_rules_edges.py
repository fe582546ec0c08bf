"""Policies of a store on odd input: what is foreign, what never ends, what is nested, what a policy gets wrong."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from deltamem_agents import HybridMemory, MemoryStore
from deltamem_agents.archive import NewRecord, PolicyRefusedError
from deltamem_agents.archive.errors import RecordInvalidError
from deltamem_agents.archive.records import namespace_key
from deltamem_agents.archive.transfer import export_lines, import_lines
from deltamem_agents.policy import (
    MemoryPolicy,
    PolicyChain,
    PolicyMessage,
    RedactedSpan,
    Retain,
    Secrets,
    Signals,
    TimeToLive,
)

ANN, BOB = ("user", "ann"), ("user", "bob")


class NoMiddle(MemoryPolicy):
    """Refuse what says middle."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        return Retain(archive="middle" not in message.text, reason="a rule")


class Emptied(MemoryPolicy):
    """Take the whole text away."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        whole = RedactedSpan(kind="all", start=0, end=len(message.text), placeholder="")
        return Retain(redactions=(whole,), reason="a rule")


class Stamped(MemoryPolicy):
    """Put a mark before every text."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        mark = RedactedSpan(kind="mark", start=0, end=0, placeholder="*")
        return Retain(redactions=(mark,), reason="odd\0reason", ttl=timedelta.max)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    """Open an empty archive."""
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as opened:
        yield opened


def _versions(store: MemoryStore, *texts: str) -> list[str]:
    """Add a record with these versions and return their ids."""
    records = store.records
    ids = [records.add(ANN, NewRecord(texts[0])).id]
    for number, text in enumerate(texts[1:], 1):
        ids.append(records.update(ANN, ids[-1], text, expected_version=number).id)
    return ids


def _links(store: MemoryStore, ids: list[str]) -> list[tuple[str | None, str | None]]:
    found = [store.records.get(ANN, one) for one in ids]
    return [(one.supersedes, one.superseded_by) for one in found if one is not None]


def test_versions_around_refused_ones_follow_one_another(store: MemoryStore, tmp_path: Path) -> None:
    """Two refused versions between the first and the last are left out of the chain."""
    ids = _versions(store, "first", "middle one", "middle two", "last")
    lines = list(export_lines(store.engine))
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/other.sqlite") as other:
        imported = import_lines(other.engine, lines, policy=NoMiddle())
        assert (imported.records, imported.refused) == (2, 2)
        assert _links(other, [ids[0], ids[3]]) == [(None, ids[3]), (ids[0], None)]


def test_an_import_changes_no_record_that_was_there(store: MemoryStore) -> None:
    """Neither a line that names another namespace's versions nor the archive's own export rewires what it holds."""
    ids = _versions(store, "first", "middle", "last")
    before, lines = _links(store, ids), list(export_lines(store.engine))
    import_lines(store.engine, lines, policy=NoMiddle())
    assert _links(store, ids) == before

    forged = dict(next(one for one in map(json.loads, lines) if one.get("text") == "middle"))
    forged |= {"namespace": namespace_key(BOB), "supersedes": "EVIL0", "superseded_by": "EVIL"}
    imported = import_lines(store.engine, [json.dumps(forged)], policy=NoMiddle())
    assert imported.refused == 1
    assert _links(store, ids) == before


def test_each_line_that_policies_let_in_is_an_entry(store: MemoryStore, tmp_path: Path) -> None:
    """The log has the decision about each record and item beside the one entry about the file."""
    store.records.add(ANN, NewRecord("one"))
    store.records.add(ANN, NewRecord("two"))
    store.put(ANN, "key", {"a": "b"})
    lines = list(export_lines(store.engine))
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/other.sqlite") as other:
        import_lines(other.engine, lines, policy=NoMiddle())
        written = [entry for entry in other.records.audit_entries(ANN) if entry.action == "write"]
        assert len([entry for entry in written if entry.record_id]) == 3
        assert len(written) == 4
        assert other.records.verify_audit().ok


def test_reading_an_item_does_not_put_off_a_policys_limit(store: MemoryStore) -> None:
    """An item that may live a second is gone after it, however often it is read; its own limit begins anew."""
    store.rule(TimeToLive(seconds=1), ANN)
    store.put(ANN, "ruled", {"a": 1}, ttl=10)
    store.put(BOB, "own", {"a": 1}, ttl=1.2 / 60)
    for _ in range(4):
        time.sleep(0.4)
        own = store.get(BOB, "own", refresh_ttl=True)
        ruled = store.get(ANN, "ruled", refresh_ttl=True)
    assert own is not None
    assert ruled is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("profile", {"password": ["hunter2", "Tr0ub4dor9"]}),
        ("password", {"value": "Tr0ub4dor9"}),
        ("login", {"password": {"value": "Tr0ub4dor9"}}),
    ],
)
def test_a_secret_is_found_by_the_name_that_it_stands_under(
    store: MemoryStore, tmp_path: Path, key: str, value: dict[str, Any]
) -> None:
    """Also as a later element of a list, and as the only value under a name."""
    store.rule(Secrets())
    store.put(ANN, key, value)
    assert "Tr0ub4dor9" not in json.dumps(store.get(ANN, key).value)  # type: ignore[union-attr]
    store.close()
    assert not any(b"Tr0ub4dor9" in file.read_bytes() for file in tmp_path.iterdir())


def test_a_value_that_is_nested_too_deeply_is_refused(store: MemoryStore) -> None:
    """It is a clear error, and nothing of the call is stored."""
    value: Any = "end"
    for _ in range(900):
        value = [value]
    store.put(ANN, "plain", {"a": value})
    store.rule(Secrets())
    with pytest.raises(RecordInvalidError, match="nested too deeply"):
        store.put(ANN, "ruled", {"a": value})
    assert store.get(ANN, "ruled") is None


def test_odd_decisions_are_carried_out(store: MemoryStore) -> None:
    """A mark on a text that is gone, a reason with NUL and a life that no calendar has end in records and refusals."""
    store.rule(Emptied(), ANN)
    store.rule(Stamped(), ANN)
    with pytest.raises(PolicyRefusedError):  # the mark would stand in the item's key
        store.put(ANN, "key", {"a": "b"})
    store.rule(Stamped(), BOB)
    kept = store.records.add(BOB, NewRecord("said"))
    assert (kept.text, kept.expires is not None) == ("*said", True)
    assert "odd" in store.records.audit_entries(BOB)[-1].reason


def test_a_memory_below_another_is_ruled_by_its_policy_too(store: MemoryStore) -> None:
    """What is said there, as what a program writes there, is redacted by the policy of the namespace above."""
    with (
        HybridMemory(store, Secrets(), namespace=("user",)),
        HybridMemory(store, namespace=ANN) as memory,
    ):
        memory.archive([HumanMessage("The password is hunter2xyz.", id="1")], "t")
        memory.flush()
        store.records.add(ANN, NewRecord("The password is hunter3xyz."))
        assert not any("hunter" in record.text for record in store.records.list(ANN))


def test_a_second_memory_of_a_namespace_asks_the_policy_of_the_first(store: MemoryStore) -> None:
    """Whatever its own is, and without asking twice what both have."""
    with HybridMemory(store, PolicyChain([Secrets(), NoMiddle()], timeout=None), namespace=ANN):
        for thread, own in enumerate((None, Secrets(), PolicyChain([Stamped(), NoMiddle()]))):
            with HybridMemory(store, own, namespace=ANN) as memory:
                memory.archive([HumanMessage(f"The password is hunter2xyz, {thread}.", id="1")], str(thread))
                memory.archive([HumanMessage("This is in the middle.", id="2")], str(thread))
                memory.flush()
                names = [type(policy).__name__ for policy in memory.policy.policies]
                assert names[:2] == ["Secrets", "NoMiddle"]
                assert len(names) == len(set(names))
    kept = [record.text for record in store.records.list(ANN)]
    assert len(kept) == 3
    assert not any("hunter" in text or "middle" in text for text in kept)


def test_memories_made_for_each_request_do_not_add_up(store: MemoryStore) -> None:
    """Policies that decide alike are asked once, whoever brings them."""
    for _ in range(5):
        with HybridMemory(store, NoMiddle(), namespace=ANN):
            pass
    assert len(store._rules.chains(ANN)) == 1
