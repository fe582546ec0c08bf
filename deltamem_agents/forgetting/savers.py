"""Find the rows of a checkpointer."""

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver

from backbone import ConfigError
from deltamem_agents.forgetting.blob_rows import MemoryRows
from deltamem_agents.forgetting.rows import CheckpointRows
from deltamem_agents.forgetting.sqlite_rows import SqliteRows

__all__ = ["rows_of"]


def rows_of(saver: BaseCheckpointSaver[Any]) -> CheckpointRows:
    """Return the rows of a saver of LangGraph's; raises ConfigError for another one, and for an asynchronous one."""
    if isinstance(saver, InMemorySaver):
        return MemoryRows(saver)
    if isinstance(saver, SqliteSaver):
        return SqliteRows(saver)
    if any(kind.__name__ == "PostgresSaver" for kind in type(saver).__mro__):
        from deltamem_agents.forgetting.postgres_rows import PostgresRows  # noqa: PLC0415 - an extra

        return PostgresRows(saver)  # type: ignore[arg-type] # as its name says
    if any(kind.__name__ in {"AsyncSqliteSaver", "AsyncPostgresSaver"} for kind in type(saver).__mro__):
        raise ConfigError(
            "checkpoints are rewritten by a saver that was opened with `with`, and this one was opened with `async "
            "with`; open its URL once more, `with open_checkpointer(url) as rewriter`, give `rewriter` to HybridMemory "
            "or this function, and call it from a thread: await asyncio.to_thread(memory.forget, ...)"
        )
    raise ConfigError(f"checkpoints are rewritten in SQLite, Postgres and memory, got {type(saver).__name__}")
