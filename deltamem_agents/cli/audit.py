"""Declare `deltamem audit …` and what `deltamem archive …` has for records in quarantine."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backbone import ConfigError
from deltamem_agents.cli.archive import archive
from deltamem_agents.cli.archive_options import (
    AnySpace,
    AsJson,
    Database,
    Limit,
    RecordId,
    Space,
    Thread,
    archive_url,
    fields_of,
    open_store,
    show_rows,
    show_table,
)
from deltamem_agents.cli.options import labels

if TYPE_CHECKING:
    from deltamem_agents.audit import AuditHead

__all__ = ["archive", "audit"]

audit = typer.Typer(
    help="Read the log of what was decided, and check that nobody has changed it.", no_args_is_help=True
)

Reason = Annotated[str | None, typer.Option(help="Why, for the audit log.")]
_ACTOR = "command line"


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
    with open_store(db) as store:
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
    with open_store(db) as store:
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
def export(
    file: Annotated[Path | None, typer.Argument(help="File to write; standard output if left out.")] = None,
    namespace: AnySpace = None,
    db: Database = None,
) -> None:
    """Write entries as JSON lines, oldest first."""
    from deltamem_agents.archive.database import open_database, read_snapshot
    from deltamem_agents.audit import read_entries

    engine = open_database(archive_url(db))
    space = None if namespace is None else labels(namespace)
    try:
        with read_snapshot(engine) as connection:
            lines = (f"{entry.model_dump_json()}\n" for entry in read_entries(connection, space))
            if file is None:
                sys.stdout.writelines(lines)
            else:
                with file.open("w", encoding="utf-8") as stream:
                    stream.writelines(lines)
    finally:
        engine.dispose()


@archive.command(epilog="Example: deltamem archive quarantined -n acme")
def quarantined(
    namespace: Space, thread: Thread = None, limit: Limit = 20, db: Database = None, as_json: AsJson = False
) -> None:
    """List the records that wait for a person, the newest first."""
    from deltamem_agents.archive.filters import RecordFilter
    from deltamem_agents.policy.trust import QUARANTINED

    with open_store(db) as store:
        waiting = RecordFilter(thread=thread, tags=(QUARANTINED,))
        found = store.records.list(labels(namespace), waiting, limit=limit)
    show_rows([fields_of(record) for record in found], ("id", "created", "thread", "source", "text"), as_json=as_json)


@archive.command(epilog="Example: deltamem archive approve 4f1c9a77 -n acme --reason 'our own page'")
def approve(
    record_id: RecordId, namespace: Space, reason: Reason = None, db: Database = None, as_json: AsJson = False
) -> None:
    """Let a record out of quarantine, so that it can be found and shown."""
    with open_store(db) as store:
        record = store.records.approve(labels(namespace), record_id, actor=_ACTOR, reason=reason or "approved")
    print(json.dumps(fields_of(record), ensure_ascii=False) if as_json else f"approved {record.id}")


@archive.command(epilog="Example: deltamem archive reject 4f1c9a77 -n acme")
def reject(
    record_id: RecordId, namespace: Space, reason: Reason = None, db: Database = None, as_json: AsJson = False
) -> None:
    """Delete a record that is in quarantine; its thread does not archive the text again."""
    with open_store(db) as store:
        gone = store.records.reject(labels(namespace), record_id, actor=_ACTOR, reason=reason or "rejected")
    print(json.dumps({"id": record_id, "versions": gone}) if as_json else f"rejected {record_id}")


def _heads(path: Path) -> "list[AuditHead]":
    from pydantic import ValidationError

    from deltamem_agents.audit import AuditHead

    try:
        heads: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["heads"]
        return [AuditHead.model_validate(head) for head in heads]
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(f"{path} does not hold what `deltamem audit verify --json` prints") from error
