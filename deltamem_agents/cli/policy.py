"""Try a policy without writing anything: what it decides about a message, and about a file of examples."""

import json
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from deltamem_agents.cli.escaping import printable
from deltamem_agents.policy import PolicyChain, PolicyMessage, Retain, default_policy, load_policy
from deltamem_agents.policy.loading import PolicyFile

__all__ = ["explain", "try_examples"]

_SHOWN = ("working", "archive", "quarantine", "ttl", "trust", "reason")


def explain(message: str, *, source: str, policy: Path | None, as_json: bool) -> None:
    """Print what each policy decides about retaining a message, and the strictest of it.

    Raises ConfigError if the policy file cannot be used.
    """
    chain = default_policy() if policy is None else load_policy(policy)
    decision = chain.retain(PolicyMessage(message, source))
    if as_json:
        print(decision.model_dump_json())
        return
    table = Table(title=f"retain a message of source {source}")
    for column in ("policy", *_SHOWN):
        table.add_column(column)
    for part in (*decision.parts, decision):
        composed = part is decision
        table.add_row("strictest" if composed else part.policy, *_cells(part), style="bold" if composed else None)
    console = Console()
    console.print(table)
    if decision.text is not None:
        console.print("text:", printable(decision.text), markup=False, highlight=False)


def try_examples(path: Path, *, policy: Path | None, as_json: bool) -> None:
    """Print for each example of a file whether the decision is as expected; end with status 1 if one is not.

    policy: another file whose policies are tried on these examples. Raises ConfigError if a file cannot be used.
    """
    file = PolicyFile.read(path)
    chain: PolicyChain = file.chain() if policy is None else load_policy(policy)
    rows = []
    for example in file.example:
        decision = chain.retain(PolicyMessage(example.message, example.source))
        rows.append({"message": example.message, "misses": example.misses(decision), "reason": decision.reason})
    failed = sum(bool(row["misses"]) for row in rows)
    if as_json:
        print(json.dumps({"ok": not failed, "examples": rows}))
    else:
        for row in rows:
            told = f"✗ {'; '.join(row['misses'])}" if row["misses"] else "✓"
            print(printable(f"{told}  {row['message']}  ({row['reason']})"))
        print(f"{len(rows) - failed} of {len(rows)} examples as expected")
    if failed or not rows:
        raise typer.Exit(1)


def _cells(decision: object) -> list[str]:
    if not isinstance(decision, Retain):
        return []
    values = (getattr(decision, name) for name in _SHOWN)
    return ["" if value is None else getattr(value, "name", str(value)) for value in values]
