"""Declare `deltamem threads …`: list, fork, roll back, export and delete conversations."""

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backbone import ConfigError
from deltamem_agents.cli.archive_options import (
    ArchiveDatabase,
    Embeddings,
    File,
    Index,
    Space,
    show_rows,
    store_at,
    write_lines,
)
from deltamem_agents.cli.forget import PolicyFile, open_memory, print_receipt
from deltamem_agents.cli.options import AsJson, Database, archive_url, settings_now, threads_url
from deltamem_agents.cli.progress import working

if TYPE_CHECKING:
    from deltamem_agents.archive.store import MemoryStore

__all__ = ["threads"]

threads = typer.Typer(help="List, fork, roll back, export and delete threads.", no_args_is_help=True)

Thread = Annotated[str, typer.Argument(help="Name of the thread.")]


@threads.command("list", epilog="Example: deltamem threads list --json")
def list_all(db: Database = None, as_json: AsJson = False) -> None:
    """List the threads, the one that was used last first."""
    from dataclasses import asdict

    with working("reading the threads"), _checkpointer(db) as saver:
        from deltamem_agents.threads import list_threads

        rows = [asdict(one) for one in list_threads(saver)]
    show_rows(rows, ("thread", "updated", "messages", "absorbed", "checkpoint"), as_json=as_json, what="threads")


@threads.command(epilog="Example: deltamem threads fork notes notes-2")
def fork(
    thread: Thread,
    target: Annotated[str, typer.Argument(help="Name of the new thread.")],
    checkpoint: Annotated[
        str | None, typer.Option(help="Id of the checkpoint, or part of it; the newest if left out.")
    ] = None,
    db: Database = None,
    archive_db: ArchiveDatabase = None,
    as_json: AsJson = False,
) -> None:
    """Copy a thread up to a checkpoint to a new thread, working memory included; the archive then knows the copy."""
    with working("copying"), _checkpointer(db) as saver, _archive(archive_db) as store:
        from deltamem_agents.threads import fork_thread

        count = fork_thread(saver, thread, target, checkpoint=checkpoint, store=store)
    print(
        json.dumps({"thread": target, "checkpoints": count}) if as_json else f"{count} checkpoints copied to {target}"
    )


@threads.command(epilog="Example: deltamem threads rollback notes 1f0a7c2e -n acme")
def rollback(
    thread: Thread,
    checkpoint: Annotated[
        str, typer.Argument(help="Id of the checkpoint, or its beginning or end; `threads export` lists them.")
    ],
    namespace: Space,
    policy: PolicyFile = None,
    db: Database = None,
    archive_db: ArchiveDatabase = None,
    index: Index = None,
    embeddings: Embeddings = None,
    as_json: AsJson = False,
) -> None:
    """Take a thread back to a checkpoint, and its records out of the archive that came after."""
    with working("going back"), open_memory(namespace, db, archive_db, index, embeddings, policy) as memory:
        receipt = memory.rollback(thread, checkpoint)
    print_receipt(receipt, as_json=as_json)


@threads.command(epilog="Example: deltamem threads export notes notes.json")
def export(thread: Thread, file: File = None, db: Database = None) -> None:
    """Write a thread's messages and checkpoints as JSON."""
    with working("reading the thread"), _checkpointer(db) as saver:
        from deltamem_agents.threads import export_thread

        text = json.dumps(export_thread(saver, thread), ensure_ascii=False, indent=2, default=str)
    write_lines(file, [text])


@threads.command(epilog="Example: deltamem threads delete notes -n acme --reason 'asked to'")
def delete(
    thread: Thread,
    namespace: Space,
    reason: Annotated[str, typer.Option(help="Why; for the audit log.")] = "deleted on the command line",
    policy: PolicyFile = None,
    db: Database = None,
    archive_db: ArchiveDatabase = None,
    index: Index = None,
    embeddings: Embeddings = None,
    as_json: AsJson = False,
) -> None:
    """Erase a thread: its checkpoints, its working memory, and what the archive has of it."""
    with working("erasing"), open_memory(namespace, db, archive_db, index, embeddings, policy) as memory:
        receipt = memory.forget(thread=thread, reason=reason, actor="deltamem threads")
    print_receipt(receipt, as_json=as_json)


@contextlib.contextmanager
def _checkpointer(db: str | None) -> Iterator[Any]:
    from deltamem_agents.checkpoint import open_checkpointer

    settings = settings_now()
    key = None if settings.aes_key is None else settings.aes_key.get_secret_value()
    with open_checkpointer(threads_url(db), aes_key=key) as saver:
        yield saver


@contextlib.contextmanager
def _archive(db: str | None) -> "Iterator[MemoryStore | None]":
    """Give the archive; None where none was named and there is none: `deltamem chat` has none."""
    try:
        url = archive_url(db, flag="--archive-db")
    except ConfigError:
        if db is not None:
            raise
        yield None
        return
    with store_at(url) as store:
        yield store
