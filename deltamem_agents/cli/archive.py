"""Declare `deltamem archive …`: look into an archive, check it, rebuild its index, move it."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from backbone import ConfigError
from deltamem_agents.cli.archive_options import (
    AnySpace,
    AsJson,
    Database,
    Embeddings,
    File,
    Index,
    Limit,
    RecordId,
    Space,
    Thread,
    archive_index,
    fields_of,
    open_record,
    open_store,
    show_rows,
    show_table,
    write_lines,
)
from deltamem_agents.cli.options import archive_url, labels, settings_now
from deltamem_agents.cli.progress import progress, watched

__all__ = ["archive"]

archive = typer.Typer(help="Look into an archive, check it, rebuild its index, move it.", no_args_is_help=True)


@archive.command(epilog="Example: deltamem archive search 'which port' -n acme")
def search(
    question: Annotated[str, typer.Argument(help="What to look for.")],
    namespace: Space,
    thread: Thread = None,
    limit: Limit = 10,
    db: Database = None,
    index: Index = None,
    embeddings: Embeddings = None,
    as_json: AsJson = False,
) -> None:
    """Find the records that suit a question best."""
    from deltamem_agents.archive.filters import RecordFilter

    with open_store(db, index, embeddings) as store:
        hits = store.recall(labels(namespace), question, where=RecordFilter(thread=thread), limit=limit)
    rows = [{"score": hit.score, "words": hit.words, "meaning": hit.meaning, **fields_of(hit.record)} for hit in hits]
    show_rows(rows, ("score", "id", "created", "source", "text"), as_json=as_json)


@archive.command(epilog="Example: deltamem archive show 4f1c9a77 -n acme")
def show(record_id: RecordId, namespace: Space, db: Database = None, as_json: AsJson = False) -> None:
    """Show every field of a record."""
    with open_record(db) as store:
        record = store.records.get(labels(namespace), store.records.full_id(labels(namespace), record_id))
    if record is None:
        from deltamem_agents.archive.errors import RecordNotFoundError

        raise RecordNotFoundError(f"the record {record_id!r} has expired")
    fields = fields_of(record)
    if as_json:
        print(json.dumps(fields, ensure_ascii=False))
    else:
        show_table("record", ("field", "value"), fields.items())


@archive.command("list", epilog="Example: deltamem archive list -n acme --limit 5")
def list_records(
    namespace: Space, thread: Thread = None, limit: Limit = 20, db: Database = None, as_json: AsJson = False
) -> None:
    """List the newest records."""
    from deltamem_agents.archive.filters import RecordFilter

    with open_record(db) as store:
        found = store.records.list(labels(namespace), RecordFilter(thread=thread), limit=limit)
    show_rows([fields_of(record) for record in found], ("id", "created", "thread", "source", "text"), as_json=as_json)


@archive.command(epilog="Example: deltamem archive stats --json")
def stats(db: Database = None, index: Index = None, as_json: AsJson = False) -> None:
    """Count records, items and pending writes, and say how large the files are."""
    from deltamem_agents.archive.statistics import statistics

    found = statistics(archive_url(db), archive_index(index))
    if as_json:
        print(json.dumps(found))
    else:
        show_table("archive", ("figure", "value"), found.items())


@archive.command(epilog="Example: deltamem archive verify --index archive.index")
def verify(db: Database = None, index: Index = None, as_json: AsJson = False) -> None:
    """Compare the index with the record; exit status 1 if they differ or the index cannot be read."""
    from deltamem_agents.archive.database import open_database
    from deltamem_agents.archive.rebuild import verify_index

    engine = open_database(archive_url(db))
    try:
        report = verify_index(engine, archive_index(index))
    finally:
        engine.dispose()
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        show_table("verification", ("figure", "value"), report.as_json().items())
    if not report.ok:
        raise typer.Exit(1)


@archive.command(epilog="Example: deltamem archive rebuild --index archive.index")
def rebuild(db: Database = None, index: Index = None, embeddings: Embeddings = None, as_json: AsJson = False) -> None:
    """Make the vector index anew from the record; with another model only if --embeddings names it."""
    from deltamem_agents.archive.rebuild import rebuild_at

    path = archive_index(index)
    if path is None:
        raise ConfigError("name the index to rebuild: --index DIRECTORY or URL, or DELTAMEM_ARCHIVE_INDEX")
    with progress("embedding") as embedded:
        named = embeddings or settings_now().archive_embeddings
        made = rebuild_at(archive_url(db), path, named, embedded, same_model=named is None)
    if as_json:
        print(json.dumps(made._asdict()))
    else:
        refused = f"; {made.refused:,} entries were refused by the model and stay pending" if made.refused else ""
        print(f"{made.vectors:,} vectors{refused}")


@archive.command(epilog="Example: deltamem archive export -n acme > acme.jsonl")
def export(
    file: File = None,
    namespace: AnySpace = None,
    db: Database = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With a FILE, print the counts as JSON instead of a table.")
    ] = False,
) -> None:
    """Write records and items as JSON lines, and print how many if they go to a file."""
    from deltamem_agents.archive.database import open_database
    from deltamem_agents.archive.transfer import export_lines

    engine = open_database(archive_url(db))
    counts: dict[str, int] = {}
    try:
        lines = export_lines(engine, None if namespace is None else labels(namespace), counts)
        # On one terminal a bar and the lines would be drawn over each other.
        with progress("exporting", hidden=file is None and sys.stdout.isatty()) as told:
            write_lines(file, watched(lines, told, lambda: sum(counts.values())))
    finally:
        engine.dispose()
    if file is not None:
        _show_counts("exported", ("kind", "lines"), counts, as_json=as_json)


@archive.command("import", epilog="Example: deltamem archive import acme.jsonl")
def import_file(
    file: Annotated[Path, typer.Argument(help="File that `export` has written.", exists=True, dir_okay=False)],
    policy: Annotated[
        Path | None,
        typer.Option(
            help="Policy file, TOML or YAML, asked about each record and item.", show_default="all comes in as it is"
        ),
    ] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Read what `export` has written, but for what a policy refuses; after an error, nothing of it."""
    from dataclasses import asdict

    from deltamem_agents.archive.database import open_database
    from deltamem_agents.archive.transfer import import_lines
    from deltamem_agents.policy import load_policy

    chain = None if policy is None else load_policy(policy)
    engine = open_database(settings_now(archive_db=db).archive_db)  # the one command that may make it
    try:
        with file.open(encoding="utf-8") as stream, progress("importing") as told:
            lines: Iterable[str] = stream
            if stream.seekable():  # and no pipe
                total = sum(1 for _ in stream)
                stream.seek(0)
                lines = watched(stream, told, lambda: total)
            counts = asdict(import_lines(engine, lines, policy=chain))
    finally:
        engine.dispose()
    _show_counts("imported", ("kind", "new"), counts, as_json=as_json)


def _show_counts(title: str, columns: tuple[str, str], counts: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(counts))
    else:
        show_table(title, columns, counts.items())
