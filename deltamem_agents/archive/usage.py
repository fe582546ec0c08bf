"""Say what a namespace holds, and which of it is the least useful."""

from collections.abc import Sequence

from sqlalchemy import Engine, LargeBinary, cast, func, select

from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.dialects import chunks
from deltamem_agents.archive.records import Namespace, Record, namespace_key
from deltamem_agents.archive.tables import records

__all__ = ["least_useful", "usage", "with_older"]


def usage(engine: Engine, namespace: Namespace) -> tuple[int, int]:
    """Return how many records a namespace holds, and the bytes of their texts, every version counted."""
    if engine.dialect.name == "postgresql":
        size = func.octet_length(records.c.text)
    else:
        size = func.length(cast(records.c.text, LargeBinary))
    newest = func.count().filter(records.c.superseded_by.is_(None))
    held = select(newest, func.coalesce(func.sum(size), 0)).where(records.c.namespace == namespace_key(namespace))
    with engine.connect().execution_options(**READ_ONLY) as connection:
        count, size = connection.execute(held).one()
    return int(count), int(size)


def least_useful(engine: Engine, namespace: Namespace, limit: int, offset: int = 0) -> list[Record]:
    """Return records at their newest version, the least trusted first, then the oldest."""
    mine = (records.c.namespace == namespace_key(namespace)) & records.c.superseded_by.is_(None)
    ordered = select(records).where(mine).order_by(records.c.trust, records.c.created, records.c.position)
    with engine.connect().execution_options(**READ_ONLY) as connection:
        return [Record.from_row(row) for row in connection.execute(ordered.limit(limit).offset(offset)).mappings()]


def with_older(engine: Engine, newest: Sequence[Record]) -> list[list[Record]]:
    """Return each of these records with its older versions behind it, the newest first."""
    found = [[record] for record in newest]
    going = found
    with engine.connect().execution_options(**READ_ONLY) as connection:
        while going := [some for some in going if some[-1].supersedes is not None]:
            older: dict[str, Record] = {}
            for ids in chunks([str(some[-1].supersedes) for some in going]):
                chosen = select(records).where(records.c.id.in_(ids))
                older |= {row["id"]: Record.from_row(row) for row in connection.execute(chosen).mappings()}
            going = [some for some in going if some[-1].supersedes in older]
            for some in going:
                some.append(older[str(some[-1].supersedes)])
    return found
