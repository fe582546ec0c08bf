"""Declare `deltamem audit …`: read the log of decisions, check it, export it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backbone import ConfigError
from deltamem_agents.cli.archive_options import (
    AnySpace,
    AsJson,
    Database,
    File,
    Space,
    open_record,
    show_rows,
    show_table,
    write_lines,
)
from deltamem_agents.cli.options import archive_url, labels

if TYPE_CHECKING:
    from deltamem_agents.audit import AuditHead

__all__ = ["audit"]

audit = typer.Typer(
    help="Read the log of what was decided, and check that nobody has changed it.", no_args_is_help=True
)


@audit.command("list", epilog="Example: deltamem audit list -n acme --action recall")
def list_entries(
    namespace: Space,
    action: Annotated[str | None, typer.Option(help="Only entries of this action, such as recall or forget.")] = None,
    thread: Annotated[str | None, typer.Option(help="Only entries of this thread.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many entries at most.")] = 20,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """List the newest entries of a namespace."""
    from typing import cast, get_args

    from deltamem_agents.audit import Action

    if action is not None and action not in get_args(Action):
        raise ConfigError(f"an action is one of {', '.join(get_args(Action))}; got {action!r}")
    with open_record(db) as store:
        chosen = cast("Action | None", action)
        entries = store.records.audit_entries(labels(namespace), action=chosen, thread=thread, limit=limit)
    rows = [entry.model_dump(mode="json") for entry in entries]
    columns = ("seq", "time", "action", "actor", "reason", "policy", "record_id", "thread")
    show_rows(rows, columns, as_json=as_json, what="entries")


@audit.command(epilog="Example: deltamem audit verify --json")
def verify(
    namespace: AnySpace = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="An earlier `verify --json`, kept where no writer of the database can reach it.", exists=True
        ),
    ] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Find entries that were changed, removed, reordered or cut off; exit status 1 if there are any."""
    space = None if namespace is None else labels(namespace)
    with open_record(db) as store:
        report = store.records.verify_audit(space, noted=[] if against is None else _heads(against))
    if as_json:
        print(report.model_dump_json())
    else:
        rows = [("/".join(p.namespace), p.seq, p.kind, p.message) for p in report.problems]
        if rows:
            show_table("the log was tampered with", ("namespace", "entry", "kind", "problem"), rows)
        print(f"{report.entries:,} entries, {len(rows)} problems")
    if not report.ok:
        raise typer.Exit(1)


@audit.command(epilog="Example: deltamem audit export log.jsonl")
def export(file: File = None, namespace: AnySpace = None, db: Database = None) -> None:
    """Write entries as JSON lines, oldest first."""
    from deltamem_agents.archive.database import open_database, read_snapshot
    from deltamem_agents.audit import read_entries

    engine = open_database(archive_url(db))
    space = None if namespace is None else labels(namespace)
    try:
        with read_snapshot(engine) as connection:
            write_lines(file, (entry.model_dump_json() for entry in read_entries(connection, space)))
    finally:
        engine.dispose()


def _heads(path: Path) -> "list[AuditHead]":
    from pydantic import ValidationError

    from deltamem_agents.audit import AuditHead

    try:
        heads: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["heads"]
        return [AuditHead.model_validate(head) for head in heads]
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(f"{path} does not hold what `deltamem audit verify --json` prints") from error
