"""Choose records by what is known of them; a filter can only narrow a namespace, never leave it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache

from sqlalchemy import ColumnElement, and_, bindparam, cast, false, func, not_, or_, select
from sqlalchemy.dialects.postgresql import JSONB

from deltamem_agents.archive.errors import RecordInvalidError
from deltamem_agents.archive.records import Trust
from deltamem_agents.archive.tables import UtcTime, records
from deltamem_agents.policy.trust import QUARANTINED

__all__ = ["RecordFilter"]

# Built once: for a question, building conditions costs more than asking them.
_ALIVE = or_(
    records.c.expires.is_(None),
    records.c.expires > bindparam("now", callable_=lambda: datetime.now(UTC), type_=UtcTime(), unique=True),
)
_NEWEST = records.c.superseded_by.is_(None)


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Say which records are meant; what is None or empty asks for nothing.

    thread, source, role: exactly these. tags: all of them. min_trust: this or more. since, until: when the text was
    said, both ends included. as_of: the versions that were in force at that time, instead of the newest ones. allowed:
    for source, role, thread, tags or trust, the values of which a record has one; trust is "low", "medium" or "high".
    """

    thread: str | None = None
    source: str | None = None
    role: str | None = None
    tags: tuple[str, ...] = ()
    min_trust: Trust | None = None
    since: datetime | None = None
    until: datetime | None = None
    as_of: datetime | None = None
    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("since", "until", "as_of"):
            time = getattr(self, what)
            if time is not None and time.tzinfo is None:
                raise RecordInvalidError(f"{what} carries a time zone, such as datetime.now(UTC); got {time!r}")

    def condition(self, namespace: str, dialect: str) -> ColumnElement[bool]:
        """Return the SQL for records of this namespace (its key) that the filter lets through and that live now."""
        column = records.c
        conditions = [column.namespace == namespace, _ALIVE]
        for name in ("thread", "source", "role"):
            value = getattr(self, name)
            if value is not None:
                conditions.append(column[name] == value)
        if self.min_trust is not None:
            conditions.append(column.trust >= int(self.min_trust))
        if self.since is not None:
            conditions.append(column.created >= self.since)
        if self.until is not None:
            conditions.append(column.created <= self.until)
        conditions += [_tagged(tag, dialect) for tag in self.tags]
        conditions += [_one_of(name, values, dialect) for name, values in self.allowed.items()]
        return and_(*conditions, self._in_force())

    def findable(self, namespace: str, dialect: str) -> ColumnElement[bool]:
        """Return the SQL for those of these records that a search may find: none in quarantine, unless asked for."""
        condition = self.condition(namespace, dialect)
        return condition if QUARANTINED in self.tags else and_(condition, _not_held(dialect))

    def _in_force(self) -> ColumnElement[bool]:
        if self.as_of is None:
            return _NEWEST
        replaced_later = or_(records.c.superseded_at.is_(None), records.c.superseded_at > self.as_of)
        return and_(records.c.created <= self.as_of, replaced_later)


def _one_of(name: str, values: frozenset[str], dialect: str) -> ColumnElement[bool]:
    """Return the SQL for records that have one of these values; a name that records do not have lets none through."""
    if name == "tags":
        return or_(false(), *(_tagged(tag, dialect) for tag in sorted(values)))
    if name == "trust":
        return records.c.trust.in_([int(level) for level in Trust if level.name.lower() in values])
    return records.c[name].in_(sorted(values)) if name in {"source", "role", "thread"} else false()


@cache
def _not_held(dialect: str) -> ColumnElement[bool]:
    return not_(_tagged(QUARANTINED, dialect))


def _tagged(tag: str, dialect: str) -> ColumnElement[bool]:
    if dialect == "postgresql":
        return cast(records.c.tags, JSONB).contains([tag])
    each = func.json_each(records.c.tags).table_valued("value")
    return select(each.c.value).where(each.c.value == tag).exists()
