"""Declare `deltamem archive …`: look into an archive, check it, rebuild its index, move it."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backbone import ConfigError
from deltamem_agents.cli.options import labels as _labels

if TYPE_CHECKING:
    from deltamem_agents.archive.records import Record
    from deltamem_agents.archive.store import MemoryStore

__all__ = ["archive"]

archive = typer.Typer(help="Look into an archive, check it, rebuild its index, move it.", no_args_is_help=True)

Database = Annotated[
    str | None,
    typer.Option(
        help="sqlite:///file or postgresql://…", show_default="DELTAMEM_ARCHIVE_DB, or sqlite:///archive.sqlite"
    ),
]
Index = Annotated[
    str | None,
    typer.Option(
        help="Directory of the vector index, or URL of a Chroma server.", show_default="DELTAMEM_ARCHIVE_INDEX, or none"
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="Embeddings as provider:model.", show_default="DELTAMEM_ARCHIVE_EMBEDDINGS, or all-MiniLM-L6-v2"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Space = Annotated[str, typer.Option("--namespace", "-n", help='Labels joined by "/", or a JSON list of labels.')]
AnySpace = Annotated[str | None, typer.Option("--namespace", "-n", help="One namespace; all if left out.")]
Limit = Annotated[int, typer.Option(min=1, help="How many records at most.")]
Thread = Annotated[str | None, typer.Option(help="Only records of this thread.")]
RecordId = Annotated[str, typer.Argument(help="Id of a record.")]


@archive.command(epilog="Example: deltamem archive search 'which port' -n acme")
def search(
    question: Annotated[str, typer.Argument(help="What to look for.")],
    namespace: Space,
    thread: Thread = None,
    limit: Limit = 10,
    db: Database = None,
    index: Index = None,
    embeddings: Model = None,
    as_json: AsJson = False,
) -> None:
    """Find the records that suit a question best."""
    from deltamem_agents.archive.filters import RecordFilter

    with _open(db, index, embeddings) as store:
        hits = store.recall(_labels(namespace), question, where=RecordFilter(thread=thread), limit=limit)
    rows = [{"score": hit.score, "words": hit.words, "meaning": hit.meaning, **_fields(hit.record)} for hit in hits]
    _show(rows, ("score", "id", "created", "source", "text"), as_json=as_json)


@archive.command(epilog="Example: deltamem archive show 4f1c9a77 -n acme")
def show(record_id: RecordId, namespace: Space, db: Database = None, as_json: AsJson = False) -> None:
    """Show every field of a record."""
    with _open(db) as store:
        record = store.records.get(_labels(namespace), record_id)
    if record is None:
        from deltamem_agents.archive.errors import RecordNotFoundError

        raise RecordNotFoundError(f"the namespace holds no record {record_id!r}")
    fields = _fields(record)
    if as_json:
        print(json.dumps(fields, ensure_ascii=False))
    else:
        _table("record", ("field", "value"), fields.items())


@archive.command("list", epilog="Example: deltamem archive list -n acme --limit 5")
def list_records(
    namespace: Space, thread: Thread = None, limit: Limit = 20, db: Database = None, as_json: AsJson = False
) -> None:
    """List the newest records."""
    from deltamem_agents.archive.filters import RecordFilter

    with _open(db) as store:
        found = store.records.list(_labels(namespace), RecordFilter(thread=thread), limit=limit)
    _show([_fields(record) for record in found], ("id", "created", "thread", "source", "text"), as_json=as_json)


@archive.command(epilog="Example: deltamem archive stats --json")
def stats(db: Database = None, index: Index = None, as_json: AsJson = False) -> None:
    """Count records, items and pending writes, and say how large the files are."""
    from deltamem_agents.archive.statistics import statistics

    found = statistics(_url(db), _index(index))
    if as_json:
        print(json.dumps(found))
    else:
        _table("archive", ("figure", "value"), found.items())


@archive.command(epilog="Example: deltamem archive verify --index archive.index")
def verify(db: Database = None, index: Index = None, as_json: AsJson = False) -> None:
    """Compare the index with the record; exit status 1 if they differ or the index cannot be read."""
    from deltamem_agents.archive.database import open_database
    from deltamem_agents.archive.rebuild import verify_index

    engine = open_database(_url(db))
    try:
        report = verify_index(engine, _index(index))
    finally:
        engine.dispose()
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        _table("verification", ("figure", "value"), report.as_json().items())
    if not report.ok:
        raise typer.Exit(1)


@archive.command(epilog="Example: deltamem archive rebuild --index archive.index")
def rebuild(db: Database = None, index: Index = None, embeddings: Model = None, as_json: AsJson = False) -> None:
    """Make the vector index anew from the record."""
    from deltamem_agents.archive.vectors import rebuild_at

    path = _index(index)
    if path is None:
        raise ConfigError("name the index to rebuild: --index DIRECTORY or URL, or DELTAMEM_ARCHIVE_INDEX")
    with _progress("embedding") as progress:
        vectors = rebuild_at(_url(db), path, embeddings or _settings().archive_embeddings, progress)
    print(json.dumps({"vectors": vectors}) if as_json else f"{vectors:,} vectors")


@archive.command(epilog="Example: deltamem archive export -n acme > acme.jsonl")
def export(
    file: Annotated[Path | None, typer.Argument(help="File to write; standard output if left out.")] = None,
    namespace: AnySpace = None,
    db: Database = None,
) -> None:
    """Write records and items as JSON lines."""
    from deltamem_agents.archive.database import open_database
    from deltamem_agents.archive.transfer import export_lines

    engine = open_database(_url(db))
    lines = (f"{line}\n" for line in export_lines(engine, None if namespace is None else _labels(namespace)))
    if file is None:
        sys.stdout.writelines(lines)
    else:
        with file.open("w", encoding="utf-8") as stream:
            stream.writelines(lines)
    engine.dispose()


@archive.command("import", epilog="Example: deltamem archive import acme.jsonl")
def import_file(
    file: Annotated[Path, typer.Argument(help="File that `export` has written.", exists=True, dir_okay=False)],
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Read what `export` has written; all of it or, after an error, nothing."""
    from dataclasses import asdict

    from deltamem_agents.archive.database import open_database
    from deltamem_agents.archive.transfer import import_lines

    engine = open_database(_url(db))
    with file.open(encoding="utf-8") as stream:
        counts = asdict(import_lines(engine, stream))
    engine.dispose()
    if as_json:
        print(json.dumps(counts))
    else:
        _table("imported", ("kind", "new"), counts.items())


def _settings() -> Any:
    from deltamem_agents.settings import Settings

    return Settings()


def _url(db: str | None) -> str:
    return str(db or _settings().archive_db)


def _index(index: str | None) -> str | None:
    chosen: str | None = index or _settings().archive_index
    return chosen


def _open(db: str | None, index: str | None = None, embeddings: str | None = None) -> "MemoryStore":
    from deltamem_agents.archive.store import MemoryStore

    path = _index(index)
    model = (embeddings or _settings().archive_embeddings) if path else None
    return MemoryStore.from_url(_url(db), path, model)


def _fields(record: "Record") -> dict[str, Any]:
    from dataclasses import asdict

    fields = asdict(record)
    times = {
        name: None if fields[name] is None else fields[name].isoformat()
        for name in ("created", "expires", "superseded_at")
    }
    return fields | times | {"trust": int(record.trust)}


def _show(rows: list[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool, what: str = "records") -> None:
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
    else:
        _table(f"{len(rows)} {what}", columns, ([row[name] for name in columns] for row in rows))


def _table(title: str, columns: tuple[str, ...], rows: Iterable[Iterable[object]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(Text(f"{cell:.3f}" if isinstance(cell, float) else str(cell)) for cell in row))
    Console().print(table)


def _progress(what: str) -> Any:
    from deltamem_agents.cli.progress import progress

    return progress(what)
