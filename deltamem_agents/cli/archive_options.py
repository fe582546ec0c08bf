"""Hold what the commands about an archive share: their options, how they open it, and how they print records."""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltamem_agents.cli.escaping import printable
from deltamem_agents.cli.options import archive_url, settings_now
from deltamem_agents.cli.progress import working

if TYPE_CHECKING:
    from deltamem_agents.archive.records import Record
    from deltamem_agents.archive.store import MemoryStore

__all__ = [
    "AnySpace",
    "ArchiveDatabase",
    "AsJson",
    "Database",
    "Embeddings",
    "File",
    "Index",
    "Limit",
    "RecordId",
    "Space",
    "Thread",
    "archive_index",
    "fields_of",
    "open_record",
    "open_store",
    "show_rows",
    "show_table",
    "store_at",
    "write_lines",
]

Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        "--archive-db",
        help="sqlite:///file or postgresql://…",
        show_default="DELTAMEM_ARCHIVE_DB, or sqlite:///archive.sqlite",
    ),
]
ArchiveDatabase = Annotated[
    str | None,
    typer.Option(
        "--archive-db",
        help="The archive: sqlite:///file or postgresql://…",
        show_default="DELTAMEM_ARCHIVE_DB, or sqlite:///archive.sqlite",
    ),
]
Index = Annotated[
    str | None,
    typer.Option(
        help="Directory of the vector index, or URL of a Chroma server.", show_default="DELTAMEM_ARCHIVE_INDEX, or none"
    ),
]
Embeddings = Annotated[
    str | None,
    typer.Option(
        help="Embeddings as provider:model, or minilm.", show_default="DELTAMEM_ARCHIVE_EMBEDDINGS, or all-MiniLM-L6-v2"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Space = Annotated[str, typer.Option("--namespace", "-n", help='Labels joined by "/", or a JSON list of labels.')]
AnySpace = Annotated[str | None, typer.Option("--namespace", "-n", help="One namespace; all if left out.")]
Limit = Annotated[int, typer.Option(min=1, help="How many records at most.")]
Thread = Annotated[str | None, typer.Option(help="Only records of this thread.")]
File = Annotated[Path | None, typer.Argument(help="File to write; standard output if left out.")]
RecordId = Annotated[
    str, typer.Argument(help="Id of a record, its beginning or end if no other has it, or its citation.")
]

_NAMES = frozenset({"checkpoint", "id", "namespace", "record_id", "thread"})
_NARROWEST = 20  # characters that a column of anything else keeps beside names


def archive_index(index: str | None) -> str | None:
    """Return the index that was named, or the one that is set, if there is one."""
    return index or settings_now().archive_index


@contextlib.contextmanager
def open_store(db: str | None, index: str | None = None, embeddings: str | None = None) -> "Iterator[MemoryStore]":
    """Open the store of an archive that is there, and show that something goes on; raises as `archive_url` does."""
    with working("asking the archive"), store_at(archive_url(db), index, embeddings) as store:
        yield store


def store_at(url: str, index: str | None = None, embeddings: str | None = None) -> "MemoryStore":
    """Return the store of a database, with the index that is named or set, to be opened by `with`."""
    from deltamem_agents.archive.store import MemoryStore

    path = archive_index(index)
    model = (embeddings or settings_now().archive_embeddings) if path else None
    return MemoryStore.from_url(url, path, model)


def open_record(db: str | None) -> "MemoryStore":
    """Return the store without its vector index, which another process may own, to be opened by `with`."""
    from deltamem_agents.archive.store import MemoryStore

    return MemoryStore.from_url(archive_url(db))


def fields_of(record: "Record") -> dict[str, Any]:
    """Return a record as JSON holds it."""
    from dataclasses import asdict

    fields = asdict(record)
    times = {
        name: None if fields[name] is None else fields[name].isoformat()
        for name in ("created", "expires", "superseded_at")
    }
    return fields | times | {"trust": int(record.trust)}


def show_rows(rows: list[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool, what: str = "records") -> None:
    """Print rows as a table of some of their columns, or all of them as JSON."""
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
    else:
        show_table(f"{len(rows)} {what}", columns, ([row[name] for name in columns] for row in rows))


def show_table(title: str, columns: tuple[str, ...], rows: Iterable[Iterable[object]]) -> None:
    """Print a table, wider than the terminal where names would not fit: other commands take them as they are.

    Control characters are escaped.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[f"{cell:.3f}" if isinstance(cell, float) else printable(str(cell)) for cell in row] for row in rows]
    table, needed = Table(title=title), 1
    for number, column in enumerate(columns):
        name = column in _NAMES
        longest = max(len(column), *(Text(row[number]).cell_len for row in cells), 0)
        table.add_column(column, no_wrap=name, overflow="fold")
        needed += 3 + (longest if name else min(longest, _NARROWEST))
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=max(Console().width, needed)).print(table)


def write_lines(file: Path | None, lines: Iterable[str]) -> None:
    """Write lines to a file, a new one for its owner alone to read, or to standard output where there is none."""
    if file is None:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return
    created = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(created, "w", encoding="utf-8") as stream:
        stream.writelines(f"{line}\n" for line in lines)
