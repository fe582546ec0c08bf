"""Erase what has expired, unless a policy keeps it."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, select

from deltamem_agents.archive.database import READ_ONLY, empty_log
from deltamem_agents.archive.dialects import chunks
from deltamem_agents.archive.items import as_record, remove_where
from deltamem_agents.archive.logged import EXPIRED, unheld
from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.rules import Rules
from deltamem_agents.archive.tables import items

__all__ = ["Sweeper"]


class Sweeper:
    """Erase expired items and records, and remember when."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._swept = datetime.min.replace(tzinfo=UTC)

    def due(self, minutes: float | None) -> bool:
        """Tell whether the last sweep is this long ago; None is never."""
        return minutes is not None and datetime.now(UTC) - self._swept >= timedelta(minutes=minutes)

    def sweep(self, engine: Engine) -> int:
        """Delete every item and every record that has expired and that nobody keeps; return how many there were."""
        self._swept = now = datetime.now(UTC)
        hold = self._rules.hold
        going = [items.c.expires <= now]
        if hold is not None:
            with engine.connect().execution_options(**READ_ONLY) as connection:
                rows = connection.execute(select(items).where(*going)).mappings().all()
            ids = unheld(engine, [as_record(row) for row in rows], hold)
            going = [going[0] & items.c.id.in_(some) for some in chunks(ids)]
        gone = 0
        for chosen in going:
            with engine.begin() as connection:
                gone += remove_where(connection, chosen, EXPIRED)
        if gone:
            empty_log(engine)
        return gone + RecordStore(engine).sweep(hold)
