"""Many writers on one record: threads at one barrier, and processes with readers beside them."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import pytest

from deltamem_agents.archive import writes
from deltamem_agents.archive.entries import locked_space
from deltamem_agents.archive.errors import RecordConflictError
from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.records import namespace_key
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.policy.trust import QUARANTINED

NS = ("user", "ann")
PATIENCE_SECONDS = 300
PROCESSES, WRITES, READERS = 4, 500, 2
WAL_BYTES = 32 * 2**20

# Programs of their own: each opens the same database, also for the first time, and says what it did.
WRITER = """
import sys
from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.writes import NewRecord
url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with RecordStore.from_url(url) as store:
    for number in range(count):
        added = store.add(("user", "ann"), NewRecord(f"fact {number} of writer {name}", name, str(number)))
        assert store.get(("user", "ann"), added.id) == added
"""
READER = """
import sys, time
from deltamem_agents.archive.record_store import RecordStore
with RecordStore.from_url(sys.argv[1]) as store:
    while (seen := store.count(("user", "ann"))) < int(sys.argv[2]):
        assert len({record.id for record in store.list(("user", "ann"), limit=20)}) == min(seen, 20) or seen < 20
        time.sleep(0.01)
"""


def at_once(count: int, work: Callable[[int], str]) -> list[str | Exception]:
    """Run `work` in many threads that start together; return what each returned or raised."""
    barrier = Barrier(count)

    def run(number: int) -> str | Exception:
        barrier.wait(PATIENCE_SECONDS)
        try:
            return work(number)
        except RecordConflictError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_sixteen_writers_of_one_fact_make_one_row(store: RecordStore) -> None:
    """Whoever comes first stores it, and everyone gets the same record."""
    found = at_once(16, lambda number: store.add(NS, NewRecord("the fact", "t", str(number))).id)
    assert len(set(found)) == 1
    assert [record.id for record in store.list(NS)] == [found[0]]


def test_one_of_many_updates_wins_and_the_others_are_told(store: RecordStore) -> None:
    """No update is lost in silence: one succeeds, the rest get an error."""
    record = store.add(NS, NewRecord("value 0"))
    outcomes = at_once(8, lambda number: store.update(NS, record.id, f"value {number + 1}", expected_version=1).text)
    won = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(won) == 1
    assert [kept.text for kept in store.list(NS)] == won


def test_writers_that_delete_and_add_lose_nothing(store: RecordStore) -> None:
    """While others empty a namespace again and again, what was added and not deleted is there."""

    def work(number: int) -> str:
        for turn in range(4):
            gone = store.add(NS, NewRecord(f"gone {number} {turn}"))
            assert store.delete(NS, [gone.id]) == 1
        return store.add(NS, NewRecord(f"kept {number}")).id

    kept = at_once(6, work)
    assert {record.id for record in store.list(NS)} == set(kept)
    assert len(set(kept)) == 6


@pytest.mark.parametrize("how", ["delete", "reject"])
def test_a_version_that_comes_meanwhile_goes_too(store: RecordStore, how: str) -> None:
    """Who deletes a record waits for who is writing, without a deadlock, and leaves no version behind."""
    old = store.add(NS, NewRecord("a rumour", tags=(QUARANTINED,)))
    erase: dict[str, Callable[[], int]] = {
        "delete": lambda: store.delete(NS, [old.id]),
        "reject": lambda: store.reject(NS, old.id, actor="test"),
    }
    with ThreadPoolExecutor(1) as pool:
        with store._engine.begin() as connection:
            key = namespace_key(NS)
            locked_space(connection, "record", key)
            erasing = pool.submit(erase[how])
            with pytest.raises(TimeoutError):
                erasing.result(1)
            writes.update(connection, key, old.id, "another rumour", 1, datetime.now(UTC))
        assert erasing.result(PATIENCE_SECONDS) == 2
    assert store.list(NS) == []


@pytest.mark.slow
def test_four_processes_write_beside_readers(sqlite_url: str, tmp_path: Path) -> None:
    """2,000 writes from four processes with readers: no error, nothing lost, and the log stays small."""
    start = [sys.executable, "-c"]
    writers = [subprocess.Popen([*start, WRITER, sqlite_url, str(number), str(WRITES)]) for number in range(PROCESSES)]
    readers = [subprocess.Popen([*start, READER, sqlite_url, str(PROCESSES * WRITES)]) for _ in range(READERS)]
    largest = 0
    while any(writer.poll() is None for writer in writers):
        log = tmp_path / "archive.sqlite-wal"
        largest = max(largest, log.stat().st_size if log.exists() else 0)
        for writer in writers:
            try:
                writer.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
    assert [process.wait(PATIENCE_SECONDS) for process in writers + readers] == [0] * (PROCESSES + READERS)
    assert largest <= WAL_BYTES
    with RecordStore.from_url(sqlite_url) as store:
        assert store.count(NS) == PROCESSES * WRITES
        assert len({record.text for record in store.list(NS, limit=PROCESSES * WRITES)}) == PROCESSES * WRITES
