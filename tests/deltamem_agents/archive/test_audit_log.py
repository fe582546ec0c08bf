"""The audit log: appended with what it records, and whatever is done to its rows afterwards is found and named."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, select, update
from sqlalchemy.pool import StaticPool

from backbone import ConfigError
from deltamem_agents.archive.database import open_database
from deltamem_agents.archive.errors import RecordNotFoundError
from deltamem_agents.archive.record_store import RecordStore, add_decided
from deltamem_agents.archive.records import NewRecord
from deltamem_agents.audit import AuditError, AuditEvent, AuditHead, append, append_all, read_entries, verify
from deltamem_agents.audit.tables import audit, digest_of, heads, metadata

ANN, BOB = ("user", "ann"), ("user", "bob")
WRITTEN = 6


def event(number: int = 0, **fields: Any) -> AuditEvent:
    given = {"action": "write", "reason": f"number {number}", "actor": "user", "detail": {"number": number}} | fields
    return AuditEvent.model_validate(given)


def test_entries_are_read_back_with_their_place_in_the_chain(store: RecordStore) -> None:
    """The newest comes first, each names the digest before it, and filters choose."""
    first = store.audit(ANN, event(1, thread="a", record_digest="d", policy="ttl", policy_version="2"))
    second = store.audit(ANN, event(2, thread="b", action="recall"))
    store.audit(BOB, event(3))
    assert store.audit_entries(ANN) == [second, first]
    assert (first.seq, second.seq, second.previous) == (1, 2, first.digest)
    assert (first.namespace, first.detail, first.policy, first.policy_version) == (ANN, {"number": 1}, "ttl", "2")
    assert store.audit_entries(ANN, thread="a") == [first]
    assert store.audit_entries(ANN, action="recall") == [second]
    assert store.audit_entries(ANN, limit=1) == [second]
    report = store.verify_audit()
    assert (report.ok, report.entries, len(report.heads)) == (True, 3, 3)
    assert store.verify_audit(BOB).entries == 1


def test_an_entry_stands_or_falls_with_its_transaction(url: str) -> None:
    """What is rolled back leaves no entry, and the chain goes on as if it had not been."""
    engine = open_database(url)
    with engine.begin() as connection:
        append(connection, ANN, event(1))
    with engine.connect() as connection, connection.begin() as undone:
        append(connection, ANN, event(2))
        append(connection, BOB, event(2))
        undone.rollback()
    with engine.begin() as connection:
        append(connection, ANN, event(3))
        assert [entry.detail["number"] for entry in read_entries(connection)] == [1, 3]
        assert verify(connection).ok
    engine.dispose()


def test_writers_at_the_same_time_make_one_chain(store: RecordStore) -> None:
    """Eight threads that write to two namespaces, both new, leave two whole chains."""

    def work(number: int) -> None:
        for turn in range(6):
            store.audit((ANN, BOB)[(number + turn) % 2], event(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    report = store.verify_audit()
    assert (report.ok, report.entries) == (True, 48)
    assert [entry.seq for entry in store.audit_entries(ANN)] == list(range(24, 0, -1))


def memory_log() -> Connection:
    """Return a connection to a database of its own, with six entries in each of two namespaces."""
    connection = create_engine("sqlite://", poolclass=StaticPool).connect()
    metadata.create_all(connection)
    for namespace in (ANN, BOB):
        append_all(connection, namespace, [event(number, thread="a") for number in range(WRITTEN)])
    return connection


KEY = '["user","ann"]'
MINE = audit.c.namespace == KEY
numbers = st.integers(1, WRITTEN)


def kinds(connection: Connection) -> set[tuple[str, int]]:
    return {(problem.kind, problem.seq) for problem in verify(connection).problems}


@settings(max_examples=60, deadline=None)
@given(
    seq=numbers,
    column=st.sampled_from([column.name for column in audit.c if column.name not in {"namespace", "seq"}]),
    value=st.one_of(st.text(max_size=5), st.none()),
)
def test_a_changed_entry_is_named(seq: int, column: str, value: str | None) -> None:
    """Whichever column is changed, the report names the entry."""
    with memory_log() as connection:
        before = connection.execute(select(audit).where(MINE, audit.c.seq == seq)).mappings().one()
        new = 7 if column == "time" else value if audit.c[column].nullable else value or "x"
        if before[column] == new:
            new = "y"
        connection.execute(update(audit).where(MINE, audit.c.seq == seq).values({column: new}))
        assert ("changed", seq) in kinds(connection)
        assert verify(connection, BOB).ok


@settings(max_examples=40, deadline=None)
@given(gone=st.sets(numbers, min_size=1, max_size=WRITTEN))
def test_removed_and_truncated_entries_are_named(gone: set[int]) -> None:
    """Entries that are gone in between are removed, those at the end truncated; the ranges are exactly those."""
    with memory_log() as connection:
        connection.execute(audit.delete().where(MINE, audit.c.seq.in_(gone)))
        kept = [seq for seq in range(1, WRITTEN + 1) if seq not in gone]
        last = max(kept, default=0)
        starts = {seq for seq in gone if seq < last and seq - 1 not in gone}
        tail = {("truncated", last + 1)} if last < WRITTEN else set()
        assert kinds(connection) == {("removed", seq) for seq in starts} | tail


@settings(max_examples=40, deadline=None)
@given(pair=st.lists(numbers, min_size=2, max_size=2, unique=True))
def test_reordered_entries_are_named(pair: list[int]) -> None:
    """Two entries that have changed places are both named as reordered."""
    with memory_log() as connection:
        for old, new in ((pair[0], -1), (pair[1], pair[0]), (-1, pair[1])):
            connection.execute(update(audit).where(MINE, audit.c.seq == old).values(seq=new))
        assert {("reordered", seq) for seq in pair} <= kinds(connection)


@settings(max_examples=30, deadline=None)
@given(seq=numbers, rehash=st.booleans())
def test_an_entry_that_was_made_to_fit_is_still_named(seq: int, *, rehash: bool) -> None:
    """A changed entry whose digest was computed anew no longer fits the one after it, or the head."""
    with memory_log() as connection:
        row = dict(connection.execute(select(audit).where(MINE, audit.c.seq == seq)).mappings().one())
        row["reason"] = "another"
        row["digest"] = digest_of(row) if rehash else row["digest"]
        connection.execute(update(audit).where(MINE, audit.c.seq == seq).values(row))
        assert kinds(connection) == {("replaced" if rehash else "changed", seq)}


def shift(connection: Connection) -> None:
    connection.execute(audit.delete().where(MINE, audit.c.seq == 3))
    for seq in range(4, WRITTEN + 1):
        connection.execute(update(audit).where(MINE, audit.c.seq == seq).values(seq=seq - 1))


TAMPERED: dict[str, tuple[Callable[[Connection], Any], set[tuple[str, int]]]] = {
    "removed, and the rest numbered anew": (shift, {("replaced", 2), ("truncated", WRITTEN)}),
    "numbered anew": (lambda c: c.execute(update(audit).where(MINE, audit.c.seq == 6).values(seq=9)), {
        ("renumbered", 9), ("added", 7),
    }),
    "the head lost": (lambda c: c.execute(heads.delete().where(heads.c.namespace == KEY)), {("head", WRITTEN)}),
    "the head turned back": (lambda c: c.execute(update(heads).values(entries=1)), {("added", 2)}),
    "another head": (lambda c: c.execute(update(heads).where(heads.c.namespace == KEY).values(digest="0")), {
        ("replaced", WRITTEN),
    }),
    "the whole log and its head": (
        lambda c: [c.execute(table.delete().where(table.c.namespace == KEY)) for table in (audit, heads)],
        {("removed", 1)},
    ),
    "the registry": (
        lambda c: [c.execute(table.delete().where(table.c.namespace == "[]")) for table in (audit, heads)],
        {("added", 1)},
    ),
    "the registry's words": (lambda c: c.execute(update(audit).where(audit.c.namespace == "[]").values(detail="?")), {
        ("changed", 1), ("changed", 2), ("added", 1),
    }),
    "another namespace": (lambda c: c.execute(update(audit).where(MINE).values(namespace="?")), {
        *(("changed", seq) for seq in range(1, WRITTEN + 1)), ("head", WRITTEN), ("added", 1), ("truncated", 1),
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_other_ways_to_tamper_are_named(name: str) -> None:
    """Numbers, heads, the list of namespaces, and rows that have moved to another one."""
    tamper, expected = TAMPERED[name]
    with memory_log() as connection:
        tamper(connection)
        assert kinds(connection) == expected


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE audit SET seq = 'x' WHERE seq = 3 AND namespace <> '[]'", "changed"),
        ("UPDATE audit_heads SET entries = 'x'", "head"),
        ("UPDATE audit_heads SET namespace = x'7a' WHERE namespace LIKE '%ann%'", "head"),
        ("UPDATE audit SET namespace = x'7a' WHERE seq = 3 AND namespace LIKE '%ann%'", "removed"),
        ("""UPDATE audit SET detail = '{"namespace": [["u"]]}' WHERE namespace = '[]'""", "changed"),
    ],
)
def test_values_of_another_type_are_named(statement: str, kind: str) -> None:
    """SQLite stores what it is given, whatever the column's type."""
    with memory_log() as connection:
        connection.exec_driver_sql(statement)
        assert kind in {found for found, _ in kinds(connection)}


def test_tampering_is_found_in_both_databases(url: str) -> None:
    """What Hypothesis tries on SQLite holds where the log really lies."""
    engine = open_database(url)
    with engine.begin() as connection:
        append_all(connection, ANN, [event(number) for number in range(WRITTEN)])
        connection.execute(update(audit).where(MINE, audit.c.seq == 2).values(reason="another"))
        connection.execute(audit.delete().where(MINE, audit.c.seq.in_([4, WRITTEN])))
        assert kinds(connection) == {("changed", 2), ("removed", 4), ("truncated", WRITTEN)}
    engine.dispose()


def test_a_noted_head_proves_what_a_rewritten_log_cannot() -> None:
    """Whoever holds the database can write a whole new log; a head that was kept elsewhere shows it."""
    with memory_log() as connection:
        noted = verify(connection, ANN).heads
        append(connection, ANN, event(7))
        assert verify(connection, noted=noted).ok
        for table in (audit, heads):
            connection.execute(table.delete())
        append_all(connection, ANN, [event(number) for number in range(WRITTEN)])
        assert verify(connection).ok
        assert [(p.kind, p.seq) for p in verify(connection, noted=noted).problems] == [("replaced", WRITTEN)]
        longer = AuditHead(namespace=ANN, entries=50, digest="0")
        assert [(p.kind, p.seq) for p in verify(connection, noted=[longer]).problems] == [("truncated", 50)]
        assert verify(connection, noted=[AuditHead(namespace=ANN, entries=0, digest="0")]).ok


def test_the_quarantine_and_its_log_in_both_databases(store: RecordStore) -> None:
    """Approving, rejecting, deleting and expiring leave one entry each, about the right record and thread."""
    held = [NewRecord(text, "t", text, "tool", "web", tags=("quarantined", "x")) for text in ("one", "two")]
    decided = [[event(action="quarantine"), event(action="redact")], [event(action="quarantine")]]
    one, two = add_decided(store._engine, ANN, held, decided)
    same = NewRecord("two", "other", "9", "tool", "web")
    assert store.add(ANN, same).id == two.id
    assert [record.id for record in store.waiting(ANN, "t")] == [one.id, two.id]
    assert [record.id for record in store.waiting(ANN, "other")] == [two.id]
    assert store.approve(ANN, one.id, actor="ann").tags == ("x",)
    assert store.reject(ANN, two.id, actor="ann") == 1
    for decide in (store.approve, store.reject):
        with pytest.raises(RecordNotFoundError, match="in quarantine"):
            decide(ANN, one.id, actor="ann")
    assert store.rejected(ANN, "t") == store.rejected(ANN, "other") == {two.hash}
    assert (store.rejected_messages(ANN, "t"), store.rejected_messages(ANN, "other")) == ({"two"}, {"9"})
    store.delete(ANN, [one.id])
    brief = store.add(ANN, NewRecord("brief", ttl=timedelta(microseconds=1)))
    assert store.sweep() == 1
    told = [(entry.action, entry.thread, entry.record_id) for entry in reversed(store.audit_entries(ANN))]
    assert told == [
        ("quarantine", "t", one.id),
        ("redact", "t", one.id),
        ("quarantine", "t", two.id),
        ("write", "other", two.id),
        ("approve", "t", one.id),
        *sorted([("reject", "t", two.id), ("reject", "other", two.id)], key=told.index),
        ("forget", "t", one.id),
        ("write", None, brief.id),
        ("expire", None, brief.id),
    ]
    assert store.verify_audit().ok


def test_a_refusal_is_logged_once_for_each_reason(store: RecordStore) -> None:
    """A thread that goes on repeats what was refused; another reason, or another version, is something new."""
    refusal = event(action="refuse", thread="t", policy="p", policy_version="1", detail={"message": "1"})
    newer = refusal.model_copy(update={"policy_version": "2"})
    for events in ([refusal], [refusal, newer], [newer], []):
        store.audit_new(ANN, events)
    assert [entry.policy_version for entry in store.audit_entries(ANN)] == ["2", "1"]


def test_what_cannot_be_recorded_is_refused() -> None:
    """An event says who and why in text that SQL can store, and belongs to a namespace."""
    for field in ({"reason": ""}, {"actor": ""}, {"thread": "a\0"}, {"action": "other"}, {"text": "hello"}):
        with pytest.raises(ValueError, match=next(iter(field))):
            event(**field)
    with memory_log() as connection:
        with pytest.raises(ConfigError, match="namespace"):
            append(connection, (), event())
        connection.execute(update(audit).where(audit.c.seq == 1).values(action="other"))
        with pytest.raises(AuditError, match="verify"):
            list(read_entries(connection))
