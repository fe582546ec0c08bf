"""Know in which namespaces a thread has run, whatever has become of its messages."""

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, Engine, Select, literal, select

from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.dialects import insert_into
from deltamem_agents.archive.records import Namespace, namespace_key, original_id, require_name
from deltamem_agents.archive.tables import messages, threads

__all__ = ["drop_threads", "note_copy", "note_said", "note_thread", "note_threads"]


def note_thread(engine: Engine, namespace: Namespace, thread: str) -> None:
    """Note that a thread runs in a namespace, so that `forget` looks there, whatever is archived of it.

    Raises RecordInvalidError for a name that is empty, not storable, or longer than 512 bytes.
    """
    require_name("thread", thread)
    key = namespace_key(namespace)
    chosen = select(threads).where(threads.c.namespace == key, threads.c.thread == thread)
    with engine.connect().execution_options(**READ_ONLY) as connection:
        known = connection.execute(chosen).one_or_none() is not None
    if not known:
        with engine.begin() as connection:
            note_threads(connection, key, [thread])


def note_threads(connection: Connection, namespace: str, names: Iterable[str]) -> None:
    """Note that threads run in a namespace."""
    # In order, so that two writers lock rows of Postgres in the same order.
    rows = [{"namespace": namespace, "thread": name} for name in sorted(names)]
    if rows:
        connection.execute(insert_into(connection, threads).on_conflict_do_nothing(), rows)


def note_said(connection: Connection) -> None:
    """Note every thread that archived messages name."""
    # SQLite takes ON CONFLICT for a join's ON where there is no WHERE.
    said = select(messages.c.namespace, messages.c.thread).where(messages.c.thread != "").distinct()
    _insert_from(connection, said)


def note_copy(connection: Connection, thread: str, target: str, said: Collection[str]) -> None:
    """Let the namespaces that know a thread know its copy, with the records that the copied messages have become.

    said: ids of the copied messages.
    """
    _insert_from(connection, select(threads.c.namespace, literal(target)).where(threads.c.thread == thread))
    rows = connection.execute(select(messages).where(messages.c.thread == thread)).mappings()
    copies = [{**row, "thread": target} for row in rows if original_id(row["message_id"], row["hash"]) in said]
    if copies:
        connection.execute(insert_into(connection, messages).on_conflict_do_nothing(), copies)


def drop_threads(connection: Connection, names: Collection[str]) -> None:
    """Take threads that are erased out of every namespace; one that goes on is noted again by its next turn."""
    for name in names:
        connection.execute(threads.delete().where(threads.c.thread == name))


def _insert_from(connection: Connection, chosen: Select[tuple[str, str]]) -> None:
    insert = insert_into(connection, threads).from_select(["namespace", "thread"], chosen)
    connection.execute(insert.on_conflict_do_nothing())
