"""The record: what is stored, read, replaced and deleted, in both databases."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text as sql

from backbone import ConfigError
from deltamem_agents.archive.database import open_database
from deltamem_agents.archive.errors import (
    ArchiveError,
    RecordConflictError,
    RecordInvalidError,
    RecordNotFoundError,
    VersionConflictError,
)
from deltamem_agents.archive.filters import RecordFilter
from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.records import Trust
from deltamem_agents.archive.writes import NewRecord

NS = ("user", "ann")
SECOND = timedelta(seconds=1)
HOSTILE = [
    ("a",),
    ("ab",),
    ("a%",),
    ("a_b",),
    ("a.b",),
    ("a", "b"),
    ('a","b',),
    ("A",),
    ("ä",),
    ("' OR 1=1 --",),
    ("[]",),
]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "update", "delete"]), st.sampled_from(HOSTILE), st.sampled_from(["x", "y z", "%", "'"])
    ),
    max_size=15,
)


def test_a_record_comes_back_as_it_was_stored(store: RecordStore) -> None:
    """Every field survives, in a process that opens the database later as well."""
    said = datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=UTC)
    new = NewRecord("naïve 'text' 🙂\n", "t", "m", "tool", "tool:ls", Trust.LOW, ("x", "ÿ"), said, timedelta(days=1))
    stored = store.add(NS, new)
    found = store.get(NS, stored.id)
    assert found == stored
    assert (stored.text, stored.thread, stored.message_id, stored.role) == (new.text, "t", "m", "tool")
    assert (stored.source, stored.trust, stored.tags, stored.created) == ("tool:ls", Trust.LOW, ("x", "ÿ"), said)
    assert stored.version == 1
    assert stored.expires is not None


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_namespaces_never_touch_each_other(
    store: RecordStore, operations: list[tuple[str, tuple[str, ...], str]]
) -> None:
    """Whatever is added, updated and deleted, each namespace holds what a dictionary of its own would hold."""
    for namespace in HOSTILE:
        store.delete(namespace, [record.id for record in store.list(namespace)])
    naive: dict[tuple[str, ...], dict[str, str]] = {namespace: {} for namespace in HOSTILE}
    for action, namespace, text in operations:
        mine = naive[namespace]
        if action == "add":
            mine.setdefault(text, store.add(namespace, NewRecord(text)).id)
            assert store.add(namespace, NewRecord(text)).id == mine[text]
        elif text in mine and action == "delete":
            others = [other for other in HOSTILE if other != namespace]
            assert [store.delete(other, [mine[text]]) for other in others] == [0] * len(others)
            assert store.delete(namespace, [mine.pop(text)]) > 0
        elif text in mine and f"{text}!" not in mine:
            old = store.get(namespace, mine.pop(text))
            assert old is not None
            mine[f"{text}!"] = store.update(namespace, old.id, f"{text}!", expected_version=old.version).id
    for namespace, expected in naive.items():
        assert {record.text: record.id for record in store.list(namespace)} == expected
        assert store.count(namespace) == len(expected)
        for other in HOSTILE:
            if other != namespace:
                assert [store.get(other, record_id) for record_id in expected.values()] == [None] * len(expected)


def test_one_text_is_one_record_that_lives_the_longest(store: RecordStore) -> None:
    """A text that is added again keeps its first source and takes the later end."""
    first = store.add(NS, NewRecord("fact", source="user", ttl=timedelta(hours=1)))
    again = store.add(NS, NewRecord("fact", source="tool:x", ttl=timedelta(hours=2)))
    shorter = store.add(NS, NewRecord("fact", ttl=SECOND))
    forever = store.add(NS, NewRecord("fact"))
    assert {first.id, again.id, shorter.id, forever.id} == {first.id}
    assert first.expires < again.expires == shorter.expires  # type: ignore[operator]
    assert (forever.expires, again.source) == (None, "user")
    assert store.count(NS) == 1


def test_a_message_is_archived_once(store: RecordStore) -> None:
    """Replaying a thread adds nothing; a known message with another text is refused."""
    thread = [NewRecord(text, "t", str(number)) for number, text in enumerate(["yes", "no", "yes"])]
    first = store.add_all(NS, thread)
    assert [record.id for record in store.add_all(NS, thread)] == [record.id for record in first]
    assert first[0].id == first[2].id
    with pytest.raises(RecordConflictError, match="another text"):
        store.add(NS, NewRecord("maybe", "t", "1"))
    changed = store.update(NS, first[1].id, "never", expected_version=1)
    assert store.add(NS, thread[1]).superseded_by == changed.id
    assert {record.text for record in store.list(NS)} == {"yes", "never"}


def test_an_update_keeps_the_old_version_readable(store: RecordStore) -> None:
    """The new version supersedes the old one; what was in force at a time can be asked for."""
    old = store.add(NS, NewRecord("tea", tags=("drink",)))
    before = datetime.now(UTC)
    new = store.update(NS, old.id, "coffee", expected_version=1)
    assert (new.version, new.supersedes, new.tags, new.source) == (2, old.id, ("drink",), old.source)
    kept = store.get(NS, old.id)
    assert kept is not None
    assert (kept.text, kept.superseded_by) == ("tea", new.id)
    assert [record.text for record in store.list(NS)] == ["coffee"]
    assert [record.text for record in store.list(NS, RecordFilter(as_of=before))] == ["tea"]


def test_an_update_that_cannot_be_done_changes_nothing(store: RecordStore) -> None:
    """A stale version, an unknown id, another namespace's id and a text that exists are errors."""
    first, other = store.add(NS, NewRecord("a")), store.add(NS, NewRecord("b"))
    second = store.update(NS, first.id, "c", expected_version=1)
    with pytest.raises(VersionConflictError, match="at version 1, expected 1, and replaced by"):
        store.update(NS, first.id, "d", expected_version=1)
    with pytest.raises(VersionConflictError, match="at version 2, expected 1"):
        store.update(NS, second.id, "d", expected_version=1)
    with pytest.raises(RecordNotFoundError):
        store.update(("user",), second.id, "d", expected_version=2)
    with pytest.raises(RecordConflictError, match="holds this text"):
        store.update(NS, second.id, "b", expected_version=2)
    assert {record.id for record in store.list(NS)} == {second.id, other.id}


def test_expired_records_are_gone_before_the_sweep_and_erased_by_it(store: RecordStore) -> None:
    """Reading never shows what has expired; the sweep deletes it from every namespace; the text may come back."""
    soon = store.add(NS, NewRecord("soon", ttl=timedelta(microseconds=1)))
    store.add(("b",), NewRecord("soon too", ttl=timedelta(microseconds=1)))
    kept = store.add(NS, NewRecord("kept", ttl=timedelta(hours=1)))
    assert (store.get(NS, soon.id), store.list(NS), store.count(NS)) == (None, [kept], 1)
    back = store.add(NS, NewRecord("soon"))
    assert back.id != soon.id
    assert store.sweep() == 1
    assert store.sweep() == 0
    assert {record.id for record in store.list(NS)} == {kept.id, back.id}


def test_expired_neighbours_are_replaced_in_one_batch(store: RecordStore) -> None:
    """Texts whose records have expired, unswept, are stored again together, and keep to their order in the thread."""
    texts = ["the red house", "a red door"]
    brief = timedelta(microseconds=1)
    old = store.add_all(NS, [NewRecord(text, "t", text, ttl=brief) for text in texts])
    new = store.add_all(NS, [NewRecord(text, "t", f"{text} again") for text in texts])
    assert [record.text for record in new] == texts
    assert not {record.id for record in old} & {record.id for record in store.list(NS)}
    assert store.sweep() == 0


@pytest.mark.parametrize("how", ["expired", "swept", "deleted"])
def test_a_replay_brings_nothing_back(store: RecordStore, how: str) -> None:
    """A message whose record is gone is known: its text is not stored again, unless another message says it."""
    life = timedelta(hours=1) if how == "deleted" else timedelta(microseconds=1)
    said = NewRecord("for a while", "t", "1", ttl=life)
    gone = store.add(NS, said)
    if how == "swept":
        store.sweep()
    elif how == "deleted":
        store.delete(NS, [gone.id])
    logged = len(store.audit_entries(NS))
    with pytest.raises(RecordNotFoundError, match="archived before"):
        store.add(NS, said)
    other = NewRecord("news", "t", "2")
    assert [record.text for record in store.add_all(NS, [said, other])] == ["news"]
    assert [record.text for record in store.list(NS)] == ["news"]
    assert len(store.audit_entries(NS)) == logged + 1 + (how == "expired")
    back = store.add(NS, NewRecord("for a while", "t", "3"))
    assert (back.id != gone.id, back.expires) == (True, None)
    assert [record.text for record in store.add_all(NS, [said])] == []


def test_a_replay_lengthens_no_life(store: RecordStore) -> None:
    """The same message again changes nothing and is not logged; another message with the text does and is."""
    said = NewRecord("for an hour", "t", "1", ttl=timedelta(hours=1))
    first = store.add(NS, said)
    assert store.add(NS, said) == first
    assert len(store.audit_entries(NS)) == 1
    again = store.add(NS, NewRecord("for an hour", "t", "2", ttl=timedelta(hours=1)))
    assert (again.id, len(store.audit_entries(NS))) == (first.id, 2)
    assert again.expires > first.expires  # type: ignore[operator]


def test_filters_choose_within_the_namespace(store: RecordStore) -> None:
    """Each field of a filter narrows the choice, and hostile values match nothing."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    for day, (source, role, trust) in enumerate(
        [("user", "user", 1), ("tool:a", "tool", 0), ("agent", "assistant", 2)]
    ):
        tags = ("odd", f"d{day}") if day % 2 else (f"d{day}",)
        created = start + timedelta(days=day)
        store.add(NS, NewRecord(f"text {day}", f"t{day}", "m", role, source, Trust(trust), tags, created))
    store.add(("other",), NewRecord("text 0", source="tool:a"))

    def days(**fields: Any) -> set[str]:
        return {record.text[-1] for record in store.list(NS, RecordFilter(**fields))}

    assert days() == {"0", "1", "2"}
    assert (days(thread="t1"), days(source="agent"), days(role="user")) == ({"1"}, {"2"}, {"0"})
    assert (days(tags=("odd", "d1")), days(tags=("odd", "d0")), days(min_trust=Trust.HIGH)) == ({"1"}, set(), {"2"})
    assert days(since=start + timedelta(days=1), until=start + timedelta(days=1)) == {"1"}
    assert days(source="' OR 1=1 --") == days(tags=('"]',)) == days(thread="%") == set()
    with pytest.raises(RecordInvalidError, match="time zone"):
        RecordFilter(since=datetime(2024, 1, 1))  # noqa: DTZ001 - the mistake under test


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"text": ""}, "empty"),
        ({"text": "a\0b"}, "NUL"),
        ({"text": "\ud800"}, "surrogate"),
        ({"text": "x", "thread": "t"}, "both or neither"),
        ({"text": "x", "thread": "t", "message_id": ""}, "1 to 512 bytes"),
        ({"text": "x", "tags": ("y" * 513,)}, "1 to 512 bytes"),
        ({"text": "x", "ttl": timedelta(0)}, "positive"),
    ],
)
def test_what_cannot_be_stored_is_refused(bad: dict[str, Any], message: str) -> None:
    """The error says what was expected."""
    with pytest.raises(RecordInvalidError, match=message):
        NewRecord(**bad)


@pytest.mark.parametrize("namespace", [(), ("",), ("a", ""), "a", ("a\0",), ("x" * 1025,), (1,), None])
def test_a_namespace_is_a_tuple_of_labels(store: RecordStore, namespace: Any) -> None:
    """There is no default namespace and no way around one."""
    with pytest.raises(RecordInvalidError, match="namespace"):
        store.list(namespace)


def test_deleted_text_is_in_no_file(tmp_path: Path) -> None:
    """After delete the bytes of every version, and of its terms, are gone from the database and its log."""
    with RecordStore.from_url(f"sqlite:///{tmp_path}/a.sqlite") as store:
        store.add(NS, NewRecord("the neighbour stays"))
        old = store.add(NS, NewRecord("canaryone speaks", "t", "m"))
        new = store.update(NS, old.id, "canarytwo speaks", expected_version=1)
        assert any(b"canary" in path.read_bytes() for path in tmp_path.iterdir())
        assert store.delete(NS, [new.id]) == 2
        assert not any(b"canary" in path.read_bytes() for path in tmp_path.iterdir())
        assert [record.text for record in store.list(NS)] == ["the neighbour stays"]


def test_tables_of_a_newer_version_are_left_alone(url: str) -> None:
    """An older program does not write to tables that it does not know."""
    engine = open_database(url)
    with engine.begin() as connection:
        connection.execute(sql("UPDATE archive_schema SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(ArchiveError, match="newer version"):
        open_database(url)


@pytest.mark.parametrize("bad", ["oracle://u:hunter2@h/x", "sqlite://", "sqlite:///:memory:", "archive.sqlite", ""])
def test_other_urls_are_refused_without_their_password(bad: str) -> None:
    """A URL that names no place for a record says what would."""
    with pytest.raises(ConfigError, match="a database URL is") as refusal:
        open_database(bad)
    assert "hunter2" not in str(refusal.value)


def test_sqlite_is_opened_for_real_use(tmp_path: Path) -> None:
    """Write-ahead log of bounded size, a busy timeout, erased deletions, and a file that only its owner can read."""
    engine = open_database(f"sqlite:///{tmp_path}/a.sqlite")
    with engine.connect() as connection:
        names = ("journal_mode", "busy_timeout", "secure_delete", "journal_size_limit")
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]
    engine.dispose()
    assert found == ["wal", 30_000, 1, 16 * 2**20]
    assert (tmp_path / "a.sqlite").stat().st_mode & 0o777 == 0o600
    assert sqlite3.connect(tmp_path / "a.sqlite").execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_that_others_can_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is left as it is; the log says how to change that, and says nothing of a new file."""
    path = tmp_path / "a.sqlite"
    open_database(f"sqlite:///{path}").dispose()
    assert "chmod" not in caplog.text
    path.chmod(0o644)
    open_database(f"sqlite:///{path}").dispose()
    assert path.stat().st_mode & 0o777 == 0o644
    assert f"chmod 600 {path}" in caplog.text
