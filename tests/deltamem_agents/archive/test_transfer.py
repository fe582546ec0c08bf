"""Export and import: one moment of a live archive, and two archives that become one."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from deltamem_agents import MemoryStore
from deltamem_agents.archive import writes
from deltamem_agents.archive.database import open_database
from deltamem_agents.archive.errors import RecordInvalidError
from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.tables import items, records
from deltamem_agents.archive.transfer import export_lines, import_lines
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.policy import MemoryPolicy, PolicyChain, PolicyMessage, Retain, Secrets, Signals, TimeToLive

NS = ("user", "ann")
TOKEN = "ghp_" + "a1B2c3D4e5F6" * 3


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """Open an empty database of each kind."""
    opened = open_database(url)
    yield opened
    opened.dispose()


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Engine]:
    """Open another empty database."""
    opened = open_database(f"sqlite:///{tmp_path}/copy.sqlite")
    yield opened
    opened.dispose()


def test_an_export_is_of_one_moment(engine: Engine, copy: Engine) -> None:
    """What is written and deleted while lines are read is not in them, so that they can always be imported."""
    store = RecordStore(engine)
    said = store.add_all(NS, [NewRecord(f"fact {number}", "t", str(number)) for number in range(20)])
    lines = export_lines(engine)
    first = next(lines)
    with engine.begin() as connection:
        writes.delete_where(connection, records.c.id.in_([record.id for record in said[:10]]))
    store.add(NS, NewRecord("too late", "t", "late"))
    found = import_lines(copy, [first, *lines])
    assert (found.records, found.messages) == (20, 20)
    assert {record.text for record in RecordStore(copy).list(NS)} == {record.text for record in said}


def test_two_archives_become_one(engine: Engine, copy: Engine) -> None:
    """A text that both have is the record that was there, with both's tags; messages and older versions lead to it."""
    mine, theirs = RecordStore(copy), RecordStore(engine)
    kept = mine.add(NS, NewRecord("tea at four", tags=("mine",)))
    old = theirs.add(NS, NewRecord("tea at five", "t", "1", tags=("legal-hold",)))
    theirs.update(NS, old.id, "tea at four", expected_version=1)
    theirs.add(NS, NewRecord("tea at four", "t", "2"))
    theirs.add(NS, NewRecord("and cake", "t", "3"))
    lines = list(export_lines(engine))
    found = import_lines(copy, lines)
    assert (found.records, found.messages, found.known) == (2, 3, 1)
    assert {record.text for record in mine.list(NS)} == {"tea at four", "and cake"}
    now = mine.add(NS, NewRecord("tea at four", "t", "2"))
    assert (now.id, now.tags) == (kept.id, ("mine", "legal-hold"))
    before = mine.get(NS, old.id)
    assert before is not None
    assert before.superseded_by == kept.id
    assert import_lines(copy, lines).known == len(lines)
    assert mine.delete(NS, [kept.id]) == 2


def test_a_message_whose_record_is_gone_stays_known(engine: Engine, copy: Engine) -> None:
    """A copy of an archive does not archive again what was deleted from the first."""
    store, new = RecordStore(engine), NewRecord("for an hour", "t", "1", ttl=timedelta(hours=1))
    store.delete(NS, [store.add(NS, new).id])
    lines = list(export_lines(engine))
    assert import_lines(copy, lines).messages == 1
    assert RecordStore(copy).add_all(NS, [new]) == []
    assert list(export_lines(copy)) == lines


@pytest.mark.parametrize(
    "spoilt",
    [
        {"trust": 7}, {"trust": None}, {"created": 10**30}, {"created": 1e30}, {"created": None}, {"expires": "soon"},
        {"created": 2**62}, {"id": "x" * 40}, {"id": None}, {"version": "v"}, {"version": 2**31}, {"tags": None},
        {"tags": "abc"}, {"tags": [1]}, {"namespace": 3}, {"namespace": "[]"}, {"superseded_by": 5}, {"role": "\0"},
    ],
    ids=str,
)  # fmt: skip
def test_a_field_that_no_export_holds_is_refused_with_its_line(copy: Engine, spoilt: dict[str, Any]) -> None:
    """Nothing is stored that could not be read again, and the error names the line."""
    store = RecordStore(copy)
    store.add(NS, NewRecord("fact"))
    lines = list(export_lines(copy))
    bad = json.dumps({**json.loads(lines[0]), "id": "new", "text": "another", **spoilt})
    with pytest.raises(RecordInvalidError, match="line 2 is no record"):
        import_lines(copy, [lines[0], bad])
    assert [record.text for record in store.list(NS)] == ["fact"]


def test_namespaces_that_look_alike_are_exported_apart(engine: Engine, url: str) -> None:
    """Records, messages, items and threads of one namespace are in its export, and nothing of any other."""
    names = [("a",), ("ab",), ("a%",), ("a_b",), ("A",), ("a", "b"), ('a","b',), ("' OR 1=1 --",)]
    with MemoryStore.from_url(url) as store:
        for name in names:
            store.records.add(name, NewRecord(f"text of {name}", "t", "1"))
            store.put(name, "k", {"n": 1})
    for name in names:
        said = [json.loads(line) for line in export_lines(engine, name)]
        assert {tuple(json.loads(one["namespace"])) for one in said} == {name}
        assert {"record", "message", "item"} <= {one["kind"] for one in said}
    assert {tuple(json.loads(json.loads(line)["namespace"])) for line in export_lines(engine)} == set(names)


class NoGossip(MemoryPolicy):
    """Refuse gossip, and whatever comes from the web; note what is asked about."""

    name = "no-gossip"

    def __init__(self) -> None:
        self.seen: list[PolicyMessage] = []

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        self.seen.append(message)
        kept = "gossip" not in message.text and message.source != "web"
        return Retain(archive=kept, tags=("checked",), reason="gossip is not for the archive")


def test_what_a_policy_refuses_does_not_come_in(engine: Engine, copy: Engine, url: str) -> None:
    """Records, with their messages, and items; the log says so; secrets are redacted; a second import adds nothing."""
    with MemoryStore.from_url(url) as store:
        told = ("tea at four", "gossip", f"my token is {TOKEN}")
        said = [NewRecord(text, "t", str(number)) for number, text in enumerate(told)]
        store.records.add_all(
            NS, [*said, NewRecord("a page", source="web"), NewRecord("also", role="x", source="tool:x")]
        )
        store.put(NS, "plan", {"tea": "four", "deep": [TOKEN]})
        store.put(NS, "news", {"text": "gossip"})
        lines = list(export_lines(engine))
    policy = NoGossip()
    chain = PolicyChain([Secrets(), policy, TimeToLive(seconds=60)])
    found = import_lines(copy, lines, policy=chain)
    assert (found.records, found.messages, found.items, found.refused) == (3, 2, 1, 4)
    assert {(one.source, one.id) for one in policy.seen} == {
        ("user", "0"), ("user", "1"), ("user", "2"), ("web", ""), ("tool:x", ""), ("import", ""),
    }  # fmt: skip
    kept = {record.message_id: record for record in RecordStore(copy).list(NS)}
    assert kept["0"].tags == ("checked",)
    assert kept["0"].expires is not None
    with copy.connect() as connection:
        (item,) = connection.execute(select(items)).mappings()
        texts = [str(value) for row in connection.execute(select(records.c.text, records.c.hash)) for value in row]
    assert (item["key"], item["ttl_minutes"], item["expires"] is None) == ("plan", None, False)
    assert not any(TOKEN in text for text in (*texts, item["value"], item["texts"]))
    logged = Counter((one.action, one.policy) for one in RecordStore(copy).audit_entries(NS))
    written = {("write", None): 1, ("write", "no-gossip+ttl"): 2, ("write", "secrets+no-gossip+ttl"): 2}
    assert logged == {**written, ("refuse", "no-gossip+ttl"): 3, ("redact", "secrets"): 2}
    again = import_lines(copy, lines, policy=chain)
    assert (again.records, again.items, again.messages, again.refused) == (0, 0, 0, 4)
    assert RecordStore(copy).verify_audit().ok


def test_versions_around_a_refused_one_stay_one_record(engine: Engine, copy: Engine) -> None:
    """So that deleting the record deletes every version that came in."""
    theirs, mine = RecordStore(engine), RecordStore(copy)
    ids = [theirs.add(NS, NewRecord("one")).id]
    for version, text in enumerate(("gossip two", "gossip three", "four"), 1):
        ids.append(theirs.update(NS, ids[-1], text, expected_version=version).id)
    found = import_lines(copy, export_lines(engine), policy=NoGossip())
    assert (found.records, found.refused) == (2, 2)
    first, last = mine.get(NS, ids[0]), mine.get(NS, ids[3])
    assert first is not None
    assert last is not None
    assert (first.superseded_by, last.supersedes) == (ids[3], ids[0])
    assert mine.delete(NS, [ids[0]]) == 2


def test_a_refused_last_version_brings_no_old_one_back(engine: Engine, copy: Engine) -> None:
    """What was superseded stays so."""
    theirs = RecordStore(engine)
    first = theirs.add(NS, NewRecord("one"))
    theirs.update(NS, first.id, "gossip", expected_version=1)
    assert import_lines(copy, export_lines(engine), policy=NoGossip()).refused == 1
    assert RecordStore(copy).list(NS) == []
    assert RecordStore(copy).get(NS, first.id) is not None
