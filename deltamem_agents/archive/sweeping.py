"""Erase what has expired, unless a policy keeps it."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from deltamem_agents.archive.database import empty_log
from deltamem_agents.archive.items import remove_where
from deltamem_agents.archive.logged import EXPIRED
from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.records import Record
from deltamem_agents.archive.tables import items
from deltamem_agents.policy import MemoryPolicy, PolicyChain, PolicyContext

__all__ = ["Sweeper"]


class Sweeper:
    """Erase expired items and records, and remember when, and whom to ask about records."""

    def __init__(self) -> None:
        self._swept = datetime.min.replace(tzinfo=UTC)
        self._asked: list[PolicyChain] = []

    def ask(self, policy: PolicyChain) -> None:
        """Ask these policies from now on; those without a `forget` of their own have nothing to say."""
        own = [one for one in policy.policies if getattr(one.forget, "__func__", None) is not MemoryPolicy.forget]
        chain = PolicyChain(own, timeout=policy.timeout)
        if own and all(known.policies != chain.policies for known in self._asked):
            self._asked.append(chain)

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
        return gone + RecordStore(engine).sweep(self._keeps if self._asked else None)

    def _keeps(self, record: Record) -> bool:
        context = PolicyContext(record.namespace, record.thread)
        return any(chain.forget(record, context).action == "keep" for chain in self._asked)
