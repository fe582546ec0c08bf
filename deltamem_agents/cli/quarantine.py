"""Declare what `deltamem archive …` has for records in quarantine: list, approve, reject."""

import json
from typing import Annotated

import typer

from deltamem_agents.cli.archive import archive
from deltamem_agents.cli.archive_options import (
    AsJson,
    Database,
    Limit,
    RecordId,
    Space,
    Thread,
    fields_of,
    open_record,
    open_store,
    show_rows,
)
from deltamem_agents.cli.forget import PolicyFile
from deltamem_agents.cli.options import labels

__all__ = ["archive"]

Reason = Annotated[str | None, typer.Option(help="Why, for the audit log.")]
_ACTOR = "command line"


@archive.command(epilog="Example: deltamem archive quarantined -n acme")
def quarantined(
    namespace: Space, thread: Thread = None, limit: Limit = 20, db: Database = None, as_json: AsJson = False
) -> None:
    """List the records that wait for a person, the newest first."""
    from deltamem_agents.archive.filters import RecordFilter
    from deltamem_agents.policy.trust import QUARANTINED

    with open_record(db) as store:
        waiting = RecordFilter(thread=thread, tags=(QUARANTINED,))
        found = store.records.list(labels(namespace), waiting, limit=limit)
    show_rows([fields_of(record) for record in found], ("id", "created", "thread", "source", "text"), as_json=as_json)


@archive.command(epilog="Example: deltamem archive approve 4f1c9a77 -n acme --reason 'our own page'")
def approve(
    record_id: RecordId, namespace: Space, reason: Reason = None, db: Database = None, as_json: AsJson = False
) -> None:
    """Let a record out of quarantine, so that it can be found and shown."""
    with open_store(db) as store:
        chosen = store.records.full_id(labels(namespace), record_id)
        record = store.records.approve(labels(namespace), chosen, actor=_ACTOR, reason=reason or "approved")
    print(json.dumps(fields_of(record), ensure_ascii=False) if as_json else f"approved {record.id}")


@archive.command(epilog="Example: deltamem archive reject 4f1c9a77 -n acme")
def reject(
    record_id: RecordId,
    namespace: Space,
    reason: Reason = None,
    policy: PolicyFile = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Delete a record that is in quarantine; its thread does not archive the text again."""
    from deltamem_agents.policy import load_policy

    chain = None if policy is None else load_policy(policy)
    with open_store(db) as store:
        store.rule(chain, labels(namespace))
        chosen = store.records.full_id(labels(namespace), record_id)
        gone = store.records.reject(labels(namespace), chosen, actor=_ACTOR, reason=reason or "rejected")
    held = "" if gone else "; the policy keeps it in quarantine"
    print(json.dumps({"id": chosen, "versions": gone}) if as_json else f"rejected {chosen}{held}")
