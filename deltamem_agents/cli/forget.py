"""Declare `deltamem forget …`: erase from every tier, and show the receipt."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltamem_agents.cli.archive_options import ArchiveDatabase, Embeddings, Index, Space, store_at
from deltamem_agents.cli.escaping import printable
from deltamem_agents.cli.options import (
    AsJson,
    Database,
    Device,
    archive_url,
    chat_model,
    labels,
    settings_now,
    threads_url,
)
from deltamem_agents.cli.progress import working

if TYPE_CHECKING:
    from deltamem_agents.archive.store import MemoryStore
    from deltamem_agents.forgetting.receipt import ForgetReceipt
    from deltamem_agents.hybrid import HybridMemory

__all__ = ["PolicyFile", "forget", "open_memory", "print_receipt"]

_NONE = "; memory:// if there is none"

PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="Policy file, TOML or YAML; it may keep what it holds.")
]


def forget(
    namespace: Space,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Record or its citation, or message; can be repeated.")
    ] = None,
    query: Annotated[str | None, typer.Option(help="What says this text, letter case aside.")] = None,
    thread: Annotated[str | None, typer.Option(help="What was said in this thread.")] = None,
    subject: Annotated[str | None, typer.Option(help="Records with the tag subject:NAME.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The namespace, and all below it.")] = False,
    reason: Annotated[str, typer.Option(help="Why; for the audit log.")] = "asked on the command line",
    secure: Annotated[bool, typer.Option(help="Write files anew, so that no byte is left, and search them.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and change nothing.")] = False,
    policy: PolicyFile = None,
    device: Device = None,
    db: Database = None,
    archive_db: ArchiveDatabase = None,
    index: Index = None,
    embeddings: Embeddings = None,
    as_json: AsJson = False,
) -> None:
    """Erase what all of the options name from every tier; exit status 1 if something is left to do.

    Working memories are replayed with the model of DELTAMEM_MODEL and DELTAMEM_ADAPTER, as `deltamem chat` calls it.
    """
    with (
        working("looking" if dry_run else "erasing"),
        open_memory(namespace, db, archive_db, index, embeddings, policy, device) as memory,
    ):
        receipt = memory.forget(
            ids=[_cited(memory, one) for one in ids or ()] or None,
            query=query,
            thread=thread,
            subject=subject,
            namespace=memory.namespace if everything else None,
            reason=reason,
            actor="deltamem forget",
            secure=secure,
            dry_run=dry_run,
        )
    print_receipt(receipt, as_json=as_json)


@contextlib.contextmanager
def open_memory(
    namespace: str,
    db: str | None,
    archive_db: str | None = None,
    index: str | None = None,
    embeddings: str | None = None,
    policy: Path | None = None,
    device: str | None = None,
) -> "Iterator[HybridMemory]":
    """Open the memory of a namespace with its checkpointer and model; what is None comes from the settings.

    Raises ConfigError for a SQLite file that is not there; memory:// stands for threads or an archive that never were.
    """
    from deltamem_agents.checkpoint import open_checkpointer
    from deltamem_agents.hybrid import HybridMemory
    from deltamem_agents.policy import load_policy

    settings = settings_now(device=device)
    key = None if settings.aes_key is None else settings.aes_key.get_secret_value()
    with (
        _archive(archive_db, index, embeddings) as store,
        open_checkpointer(threads_url(db, none=_NONE), aes_key=key) as saver,
        HybridMemory(
            store,
            None if policy is None else load_policy(policy),
            namespace=labels(namespace),
            checkpointer=saver,
            model=chat_model(settings),
        ) as memory,
    ):
        yield memory


@contextlib.contextmanager
def _archive(db: str | None, index: str | None, embeddings: str | None) -> "Iterator[MemoryStore]":
    from deltamem_agents.archive.store import MemoryStore

    url = archive_url(db, flag="--archive-db", none=_NONE)
    with contextlib.ExitStack() as stack:
        if url == "memory://":
            empty = stack.enter_context(tempfile.TemporaryDirectory())
            yield stack.enter_context(MemoryStore.from_url(f"sqlite:///{empty}/archive.sqlite"))
        else:
            yield stack.enter_context(store_at(url, index, embeddings))


def _cited(memory: "HybridMemory", name: str) -> str:
    """Return the id of a record that is named by its citation; any other name may be a message's."""
    return memory.store.records.full_id(memory.namespace, name) if name.startswith("[m:") else name


def print_receipt(receipt: "ForgetReceipt", *, as_json: bool) -> None:
    """Show a receipt; exit status 1 if something is left to do."""
    if as_json:
        print(receipt.to_json())
    else:
        _print_table(receipt)
    if not (receipt.complete or receipt.dry_run):
        raise typer.Exit(1)


def _print_table(receipt: "ForgetReceipt") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("tier", "would go" if receipt.dry_run else "erased", "note", title="forget")
    for name, tier in receipt.tiers.items():
        table.add_row(name, str(tier.erased) if tier.reached else "not reached", tier.note)
    console = Console()
    console.print(table)
    for held in receipt.held:
        console.print(printable(f"kept: {held.id} ({held.reason})"), markup=False)
    if receipt.scan is not None:
        console.print(_scan_line(receipt.scan))
    if not (receipt.complete or receipt.dry_run):
        console.print("not complete: call again")


def _scan_line(scan: Any) -> str:
    return f"{scan.texts} texts looked for in {scan.files} files, {scan.bytes:,} bytes: {scan.hits} found"
