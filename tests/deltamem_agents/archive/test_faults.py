"""Faults in SQL at every step: what was returned can be read, or an exception was raised and nothing has changed."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event, select

from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.records import Record
from deltamem_agents.archive.tables import metadata
from deltamem_agents.archive.writes import NewRecord

NS = ("user", "ann")
NEW = [NewRecord("the red bicycle", "t", "3"), NewRecord("a red sofa", "t", "4")]

Work = Callable[[RecordStore, Record], list[Record]]
WRITES: dict[str, Work] = {
    "add": lambda store, _: store.add_all(NS, NEW),
    "update": lambda store, first: [store.update(NS, first.id, "the green house", expected_version=1)],
    "delete": lambda store, first: [] if store.delete(NS, [first.id]) else [first],
}


class Fault:
    """Fail at one statement, or at the commit after the last one."""

    def __init__(self, engine: Engine) -> None:
        self.left: int | None = None
        event.listen(engine, "before_cursor_execute", self.count)
        event.listen(engine, "commit", self.count)

    def count(self, *_: Any) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise OSError("disk full")


def everything(engine: Engine) -> list[Any]:
    """Return every row of every table."""
    with engine.connect() as connection:
        return [sorted(map(repr, connection.execute(select(table)))) for table in metadata.sorted_tables]


@pytest.mark.parametrize("write", WRITES)
def test_a_fault_at_any_statement_changes_nothing(store: RecordStore, write: str) -> None:
    """Whichever statement fails, the commit included, the write raises and every table is as it was."""
    first, _ = store.add_all(NS, [NewRecord("the red house", "t", "1"), NewRecord("a red door", "t", "2")])
    engine = store._engine
    fault = Fault(engine)
    before = everything(engine)
    steps = 0
    while True:
        steps += 1
        fault.left = steps
        try:
            returned = WRITES[write](store, first)
        except OSError:
            fault.left = None
            assert everything(engine) == before, f"{write} left something at step {steps}"
            continue
        fault.left = None
        break
    assert steps > 5
    assert [store.get(NS, record.id) for record in returned] == returned
    assert everything(engine) != before
