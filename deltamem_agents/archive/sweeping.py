"""Erase what has expired, unless a policy keeps it."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from deltamem_agents.archive.database import empty_log
from deltamem_agents.archive.items import remove_where
from deltamem_agents.archive.logged import EXPIRED
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
        """Delete every item that has expired, and every record that nobody keeps; return how many there were."""
        self._swept = now = datetime.now(UTC)
        with engine.begin() as connection:
            gone = remove_where(connection, items.c.expires <= now, EXPIRED)
        if gone:
            empty_log(engine)
        return gone + RecordStore(engine).sweep(self._rules.hold)
