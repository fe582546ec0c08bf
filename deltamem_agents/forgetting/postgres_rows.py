"""The checkpoints of LangGraph's PostgresSaver."""

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg import Connection
from psycopg.types.json import Jsonb

from deltamem_agents.forgetting.blob_rows import reversioned
from deltamem_agents.forgetting.packed import Codec, Extension
from deltamem_agents.forgetting.rows import DROPPED, Change, Moved, Stored, Write, configured

__all__ = ["PostgresRows"]

_ONE = "thread_id = %s AND checkpoint_ns = %s AND checkpoint_id = %s"
_TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
_COLUMNS = "checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata"
_WRITTEN = "checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob"
_BLOB = "checkpoint_ns, channel, version, type, blob"
_UNUSED = (
    "DELETE FROM checkpoint_blobs b WHERE thread_id = %(thread)s AND NOT EXISTS (SELECT FROM checkpoints c WHERE "
    "c.thread_id = b.thread_id AND c.checkpoint_ns = b.checkpoint_ns "
    "AND c.checkpoint -> 'channel_versions' ->> b.channel = b.version)"
)


class PostgresRows:
    """Read and rewrite a PostgresSaver's tables."""

    def __init__(self, saver: PostgresSaver) -> None:
        """Take an open saver."""
        self._saver = saver
        self._codec = Codec(saver.serde)

    def threads(self) -> list[str]:
        """Return the threads that have checkpoints."""
        with self._connection() as connection:
            rows = connection.execute("SELECT DISTINCT thread_id FROM checkpoints ORDER BY thread_id").fetchall()
        return [row["thread_id"] for row in rows]

    def first(self, thread: str) -> str | None:
        """Return the id of a thread's oldest checkpoint, None if it has none."""
        with self._connection() as connection:
            oldest = "SELECT min(checkpoint_id) AS id FROM checkpoints WHERE thread_id = %s"
            found: str | None = connection.execute(oldest, (thread,)).fetchall()[0]["id"]
        return found

    def load(self, thread: str) -> list[Stored]:
        """Return a thread's checkpoints, the oldest of each graph first."""
        with self._connection() as connection, connection.transaction():
            return self._load(connection, thread)

    def _load(self, connection: Connection[Any], thread: str) -> list[Stored]:
        one = "FROM {} WHERE thread_id = %s"
        blobs = {
            (row["checkpoint_ns"], row["channel"], row["version"]): self._codec.read((row["type"], row["blob"]))
            for row in connection.execute(f"SELECT * {one.format('checkpoint_blobs')}", (thread,))
            if row["type"] != "empty"
        }
        writes: dict[tuple[str, str], list[Write]] = defaultdict(list)
        for row in connection.execute(f"SELECT * {one.format('checkpoint_writes')} ORDER BY task_id, idx", (thread,)):
            address = row["checkpoint_ns"], row["checkpoint_id"]
            value = self._codec.read((row["type"], row["blob"]))
            writes[address].append(Write((*address, row["task_id"], row["idx"]), row["channel"], value))
        found = []
        order = "ORDER BY checkpoint_ns, checkpoint_id"
        for row in connection.execute(f"SELECT * {one.format('checkpoints')} {order}", (thread,)):
            space, name, body = row["checkpoint_ns"], row["checkpoint_id"], row["checkpoint"]
            versions = body["channel_versions"]
            # A blob comes before what stands in the row, which for a snapshot of a DeltaChannel only says that it is.
            values = dict(body.get("channel_values") or {})
            values |= {c: blobs[space, c, str(v)] for c, v in versions.items() if (space, c, str(v)) in blobs}
            source, given = row["metadata"].get("source", ""), configured(row["metadata"])
            parent, written = row["parent_checkpoint_id"], tuple(writes[space, name])
            found.append(Stored(space, name, parent, source, values, versions, written, body, given))
        return found

    def save(self, thread: str, seen: Sequence[Stored], changes: Mapping[tuple[str, str], Change]) -> None:
        """Change checkpoints, all or none; raises Moved if the thread is not as it was seen."""
        with self._connection() as connection, connection.transaction():
            connection.execute(
                "LOCK TABLE checkpoints, checkpoint_blobs, checkpoint_writes IN SHARE ROW EXCLUSIVE MODE"
            )
            now = [(one.space, one.id, len(one.writes)) for one in self._load(connection, thread)]
            if now != [(one.space, one.id, len(one.writes)) for one in seen]:
                raise Moved
            done = reversioned(seen, changes)
            for (space, channel, version), value in done.blobs.items():
                self._put_blob(connection, (thread, space, channel, str(version)), value)
            for one in seen:
                address = one.space, one.id
                body = _rewritten(one, changes.get(address, Change()), done.versions.get(address, {}))
                if body != one.body:
                    statement = f"UPDATE checkpoints SET checkpoint = %s WHERE {_ONE}"  # noqa: S608 - constant text
                    connection.execute(statement, (Jsonb(body), thread, *address))
            for address, change in changes.items():
                for key, value in change.writes.items():
                    self._put_write(connection, (thread, *key), value)
                if change.unsaid:
                    unsay = f"UPDATE checkpoints SET metadata = metadata - %s::text[] WHERE {_ONE}"  # noqa: S608
                    connection.execute(unsay, (list(change.unsaid), thread, *address))
            connection.execute(_UNUSED, {"thread": thread})

    def _put_blob(self, connection: Connection[Any], key: tuple[str, ...], value: Any) -> None:
        kind, data = ("empty", None) if value is DROPPED else self._codec.write(value)
        connection.execute(
            "INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob) "
            "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (thread_id, checkpoint_ns, channel, version) "
            "DO UPDATE SET type = excluded.type, blob = excluded.blob",
            (*key, kind, data),
        )

    def _put_write(self, connection: Connection[Any], key: tuple[Any, ...], value: Any) -> None:
        one = f"{_ONE} AND task_id = %s AND idx = %s"
        if value is DROPPED:
            connection.execute(f"DELETE FROM checkpoint_writes WHERE {one}", key)  # noqa: S608 - constant text
        else:
            changed = (*self._codec.write(value), *key)
            connection.execute(f"UPDATE checkpoint_writes SET type = %s, blob = %s WHERE {one}", changed)  # noqa: S608

    def remove(self, thread: str, checkpoints: Sequence[tuple[str, str]] | None = None) -> int:
        """Remove these checkpoints of a thread, or the whole thread; return how many went."""
        with self._connection() as connection, connection.transaction():
            if checkpoints is None:
                connection.execute("DELETE FROM checkpoint_blobs WHERE thread_id = %s", (thread,))
                connection.execute("DELETE FROM checkpoint_writes WHERE thread_id = %s", (thread,))
                return connection.execute("DELETE FROM checkpoints WHERE thread_id = %s", (thread,)).rowcount
            for address in checkpoints:
                for table in ("checkpoints", "checkpoint_writes"):
                    connection.execute(f"DELETE FROM {table} WHERE {_ONE}", (thread, *address))  # noqa: S608
            connection.execute(_UNUSED, {"thread": thread})
        return len(checkpoints)

    def copy(self, thread: str, target: str, checkpoints: Sequence[tuple[str, str]]) -> None:
        """Copy these checkpoints to another thread, with what tasks wrote after all but the last."""
        with self._connection() as connection, connection.transaction():
            for columns, table, chosen in (
                (_COLUMNS, "checkpoints", checkpoints),
                (_WRITTEN, "checkpoint_writes", checkpoints[:-1]),
            ):
                copy = f"INSERT INTO {table} (thread_id, {columns}) SELECT %s, {columns} FROM {table} WHERE {_ONE}"  # noqa: S608
                for address in chosen:
                    connection.execute(copy, (target, thread, *address))
            blobs = f"INSERT INTO checkpoint_blobs (thread_id, {_BLOB}) SELECT %s, {_BLOB} FROM checkpoint_blobs "  # noqa: S608
            connection.execute(f"{blobs} WHERE thread_id = %s", (target, thread))
            connection.execute(_UNUSED, {"thread": target})

    def overwrite(self) -> str | None:
        """Write the tables anew without what was removed; nobody can use them meanwhile."""
        with self._connection() as connection:
            for table in _TABLES:
                connection.execute(f"VACUUM (FULL) {table}")
        return None

    def files(self) -> list[Path]:
        """Return nothing: the files are the server's."""
        return []

    @property
    def unread(self) -> list[str]:
        """Name what cannot be read from here."""
        return ["the files of the checkpoints' Postgres server"]

    def blobs(self, without: Collection[str] = ()) -> list[bytes]:
        """Return the bytes of every stored value and of all metadata, but for those of some threads."""
        others = "NOT thread_id = ANY(%s)"
        with self._connection() as connection:
            rows = [
                row
                for table, column in (
                    ("checkpoint_blobs", "blob"),
                    ("checkpoint_writes", "blob"),
                    ("checkpoints", "convert_to(metadata::text, 'UTF8') AS blob"),
                )
                for row in connection.execute(f"SELECT {column} FROM {table} WHERE {others}", (list(without),))  # noqa: S608
            ]
        return [bytes(row["blob"]) for row in rows if row["blob"] is not None]

    def message(self, extension: Extension) -> BaseMessage:
        """Make the message that an extension holds."""
        return self._codec.message(extension)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection[Any]]:
        held = self._saver.conn
        if isinstance(held, Connection):
            yield held
        else:
            with held.connection() as connection:
                yield connection


def _rewritten(one: Stored, change: Change, versions: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's row with other versions, and other values of those that stand in it."""
    inline = dict(one.body.get("channel_values") or {})
    for name in inline.keys() & change.values.keys():
        if inline[name] == one.values[name]:
            inline[name] = change.values[name]
    kept = {name: value for name, value in inline.items() if value is not DROPPED}
    return {**one.body, "channel_values": kept, "channel_versions": {**one.body["channel_versions"], **versions}}
