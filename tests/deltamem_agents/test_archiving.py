"""The writer behind the reply: what a database refuses is tried again, and nothing is lost in silence."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ChatMessage, HumanMessage
from sqlalchemy import event
from sqlalchemy import text as sql

from deltamem_agents import HybridMemory, MemoryStore
from deltamem_agents.archive.errors import ArchiveError
from deltamem_agents.archive.writes import NewRecord

ANN = ("user", "ann")
SAID = [HumanMessage("the code is 4711", id="1"), HumanMessage("and the door is green", id="2")]


class Database:
    """Refuse so many statements of an archive."""

    def __init__(self, store: MemoryStore) -> None:
        self.refuses = 0
        event.listen(store.engine, "before_cursor_execute", self.execute)

    def execute(self, *_: Any) -> None:
        if self.refuses:
            self.refuses -= 1
            raise OSError("disk full")


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[HybridMemory]:
    """Remember for one user in an empty archive."""
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/a.sqlite") as store, HybridMemory(store, namespace=ANN) as opened:
        yield opened


def texts(hybrid: HybridMemory) -> set[str]:
    return {record.text for record in hybrid.store.records.list(ANN)}


def test_a_refused_write_is_tried_again(hybrid: HybridMemory, caplog: pytest.LogCaptureFixture) -> None:
    """A fault that passes costs a warning, not a message."""
    Database(hybrid.store).refuses = 2
    with caplog.at_level(logging.WARNING, "deltamem_agents"):
        hybrid.archive(SAID, "t")
        hybrid.flush()
    assert texts(hybrid) == {message.text for message in SAID}
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "disk full" in caplog.text


def test_no_text_is_in_what_is_logged_about_a_database(hybrid: HybridMemory, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the database names its statement and no value in it."""
    with hybrid.store.engine.begin() as connection:
        full = "CREATE TRIGGER full BEFORE INSERT ON archive_records BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        connection.execute(sql(full))
    hybrid.archive(SAID, "t")
    with pytest.raises(ArchiveError, match="the disk is full") as raised:
        hybrid.flush()
    for told in (caplog.text, str(raised.value)):
        assert "INSERT INTO archive_records" in told
        assert "4711" not in told


def test_what_is_refused_for_good_is_raised_and_handed_over_again(hybrid: HybridMemory) -> None:
    """`flush` raises once; when the thread goes on, the process archives the messages after all."""
    database = Database(hybrid.store)
    database.refuses = 1_000
    hybrid.archive(SAID[:1], "t")
    with pytest.raises(ArchiveError, match="1 writes to the archive failed, the first with: disk full"):
        hybrid.flush()
    database.refuses = 0
    assert texts(hybrid) == set()
    hybrid.archive(SAID, "t")
    hybrid.flush()
    assert texts(hybrid) == {message.text for message in SAID}


def test_an_agent_that_goes_on_erases_what_has_expired(hybrid: HybridMemory) -> None:
    """The store is swept by the writes of an agent too, though nobody uses it as a LangGraph store."""
    brief = NewRecord("for a moment", ttl=timedelta(microseconds=1))
    hybrid.store.records.add(("user", "bob"), brief)
    hybrid.archive(SAID, "t")
    hybrid.flush()
    assert hybrid.store.records.sweep() == 0


def test_a_message_that_names_its_role_is_archived_in_that_role(hybrid: HybridMemory) -> None:
    """As the working memory reads it; the system's is not."""
    roles = ("user", "assistant", "system", "developer")
    hybrid.archive([ChatMessage(f"said as {role}", role=role, id=role) for role in roles], "one")
    hybrid.flush()
    kept = {record.text: (record.role, record.source) for record in hybrid.store.records.list(hybrid.namespace)}
    assert kept == {"said as user": ("user", "user"), "said as assistant": ("assistant", "agent")}
