"""The checkpoints of LangGraph's SqliteSaver."""

import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.sqlite import SqliteSaver

from deltamem_agents.forgetting.packed import ENCRYPTED, Codec, Extension
from deltamem_agents.forgetting.rows import DROPPED, Change, Moved, Stored, Write, configured

__all__ = ["SqliteRows"]

_CHECKPOINTS = (
    "SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints "
    "WHERE thread_id = ? ORDER BY checkpoint_ns, checkpoint_id"
)
_WRITES = (
    "SELECT checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value FROM writes "
    "WHERE thread_id = ? ORDER BY task_id, idx"
)
_SEEN = (
    "SELECT (SELECT count(*) FROM checkpoints WHERE thread_id = :id), "
    "(SELECT count(*) FROM writes WHERE thread_id = :id)"
)
_ONE = "thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
_TABLES = ("checkpoints", "writes")
_COLUMNS = {
    "checkpoints": "checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata",
    "writes": "checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value, task_path",
}


class SqliteRows:
    """Read and rewrite a SqliteSaver's tables."""

    def __init__(self, saver: SqliteSaver) -> None:
        """Take an open saver."""
        self._saver = saver
        self._codec = Codec(saver.serde)

    def threads(self) -> list[str]:
        """Return the threads that have checkpoints."""
        return [row[0] for row in self._rows("SELECT DISTINCT thread_id FROM checkpoints ORDER BY thread_id")]

    def first(self, thread: str) -> str | None:
        """Return the id of a thread's oldest checkpoint, None if it has none."""
        name: str | None = self._rows("SELECT min(checkpoint_id) FROM checkpoints WHERE thread_id = ?", thread)[0][0]
        return name

    def load(self, thread: str) -> list[Stored]:
        """Return a thread's checkpoints, the oldest of each graph first."""
        writes: dict[tuple[str, str], list[Write]] = defaultdict(list)
        for space, name, task, number, channel, kind, value in self._rows(_WRITES, thread):
            writes[space, name].append(Write((space, name, task, number), channel, self._codec.read((kind, value))))
        found = []
        for space, name, parent, kind, checkpoint, metadata in self._rows(_CHECKPOINTS, thread):
            body = self._codec.read((kind, checkpoint))
            about = json.loads(metadata)
            values, versions = body["channel_values"], body["channel_versions"]
            written, given = tuple(writes[space, name]), configured(about)
            source = about.get("source", "")
            found.append(Stored(space, name, parent, source, values, versions, written, body, given))
        return found

    def save(self, thread: str, seen: Sequence[Stored], changes: Mapping[tuple[str, str], Change]) -> None:
        """Change checkpoints, all or none; raises Moved if the thread is not as it was seen."""
        known = {(one.space, one.id): one for one in seen}
        with self._transaction() as connection:
            count = connection.execute(_SEEN, {"id": thread}).fetchone()
            if count != (len(seen), sum(len(one.writes) for one in seen)):
                raise Moved
            for address, change in changes.items():
                if change.values:
                    body = known[address].body
                    values = {**body["channel_values"], **change.values}
                    kept = {name: value for name, value in values.items() if value is not DROPPED}
                    kind, data = self._codec.write({**body, "channel_values": kept})
                    statement = f"UPDATE checkpoints SET type = ?, checkpoint = ? WHERE {_ONE}"  # noqa: S608 - constant
                    connection.execute(statement, (kind, data, thread, *address))
                for key, value in change.writes.items():
                    self._write(connection, (thread, *key), value)
                if change.unsaid:
                    self._unsay(connection, (thread, *address), change.unsaid)

    def _unsay(self, connection: sqlite3.Connection, key: tuple[str, ...], names: Collection[str]) -> None:
        (metadata,) = connection.execute(f"SELECT metadata FROM checkpoints WHERE {_ONE}", key).fetchone()  # noqa: S608
        kept = {name: value for name, value in json.loads(metadata).items() if name not in names}
        data = json.dumps(kept, ensure_ascii=False).encode("utf-8", "ignore")  # as the saver writes it
        connection.execute(f"UPDATE checkpoints SET metadata = ? WHERE {_ONE}", (data, *key))  # noqa: S608

    def _write(self, connection: sqlite3.Connection, key: tuple[Any, ...], value: Any) -> None:
        one = f"{_ONE} AND task_id = ? AND idx = ?"
        if value is DROPPED:
            connection.execute(f"DELETE FROM writes WHERE {one}", key)  # noqa: S608 - constant text
        else:
            changed = (*self._codec.write(value), *key)
            connection.execute(f"UPDATE writes SET type = ?, value = ? WHERE {one}", changed)  # noqa: S608 - as above

    def remove(self, thread: str, checkpoints: Sequence[tuple[str, str]] | None = None) -> int:
        """Remove these checkpoints of a thread, or the whole thread; return how many went."""
        with self._transaction() as connection:
            if checkpoints is None:
                connection.execute("DELETE FROM writes WHERE thread_id = ?", (thread,)).close()
                return connection.execute("DELETE FROM checkpoints WHERE thread_id = ?", (thread,)).rowcount
            addresses = [(thread, *address) for address in checkpoints]
            for table in _TABLES:
                connection.executemany(f"DELETE FROM {table} WHERE {_ONE}", addresses)  # noqa: S608
        return len(checkpoints)

    def copy(self, thread: str, target: str, checkpoints: Sequence[tuple[str, str]]) -> None:
        """Copy these checkpoints to another thread, with what tasks wrote after all but the last."""
        with self._transaction() as connection:
            for table, chosen in (("checkpoints", checkpoints), ("writes", checkpoints[:-1])):
                columns = _COLUMNS[table]
                copy = f"INSERT INTO {table} (thread_id, {columns}) SELECT ?, {columns} FROM {table} WHERE {_ONE}"  # noqa: S608
                connection.executemany(copy, [(target, thread, *address) for address in chosen]).close()

    def overwrite(self) -> str | None:
        """Write the file anew without what was removed, and empty its log."""
        with self._saver.lock:
            try:
                self._saver.conn.execute("VACUUM").close()
                busy = self._saver.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.OperationalError as error:
                return f"the checkpoints' file could not be written anew ({error}); call again when nobody uses it"
        return "another connection reads the checkpoints' log; call again when nobody uses it" if busy else None

    def files(self) -> list[Path]:
        """Return the database's file and those beside it."""
        file = next((row[2] for row in self._rows("PRAGMA database_list") if row[1] == "main"), "")
        return [path for end in ("", "-wal", "-shm", "-journal") if file and (path := Path(file + end)).is_file()]

    @property
    def unread(self) -> list[str]:
        """Name what a search of the file does not read."""
        return [ENCRYPTED] if self._codec.encrypted else []

    def blobs(self, without: Collection[str] = ()) -> list[bytes]:
        """Return the bytes of every stored value and of all metadata, but for those of some threads."""
        others = "thread_id NOT IN (SELECT value FROM json_each(?))"
        names = json.dumps(sorted(without))
        rows = [
            *self._rows(f"SELECT checkpoint FROM checkpoints WHERE {others}", names),  # noqa: S608 - constant text
            *self._rows(f"SELECT metadata FROM checkpoints WHERE {others}", names),  # noqa: S608 - as above
            *self._rows(f"SELECT value FROM writes WHERE {others}", names),  # noqa: S608 - as above
        ]
        return [row[0] for row in rows]

    def message(self, extension: Extension) -> BaseMessage:
        """Make the message that an extension holds."""
        return self._codec.message(extension)

    def _rows(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        with self._saver.cursor(transaction=False) as cursor:
            return cursor.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Begin with the right to write, and overwrite what goes with zeros."""
        connection = self._saver.conn
        self._saver.setup()
        with self._saver.lock:
            connection.execute("PRAGMA secure_delete = ON").close()
            connection.execute("BEGIN IMMEDIATE").close()
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
