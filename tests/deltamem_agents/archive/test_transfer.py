"""Export and import: one moment of a live archive, and two archives that become one."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from deltamem_agents import MemoryStore
from deltamem_agents.archive import writes
from deltamem_agents.archive.database import open_database
from deltamem_agents.archive.errors import RecordInvalidError
from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.tables import records
from deltamem_agents.archive.transfer import export_lines, import_lines
from deltamem_agents.archive.writes import NewRecord

NS = ("user", "ann")


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
