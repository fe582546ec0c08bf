"""Declare `deltamem doctor`: what works, what does not, and what to do about it."""

import json
from dataclasses import asdict

import typer

from deltamem_agents.cli.archive_options import ArchiveDatabase, Embeddings, Index
from deltamem_agents.cli.options import Adapter, AsJson, Database, Device, Model, settings_now
from deltamem_agents.cli.progress import working

__all__ = ["doctor"]

_MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "failed": ("✗", "red")}


def doctor(
    model: Model = None,
    adapter: Adapter = None,
    device: Device = None,
    db: Database = None,
    archive_db: ArchiveDatabase = None,
    index: Index = None,
    embeddings: Embeddings = None,
    as_json: AsJson = False,
) -> None:
    """Check versions, device, memory, databases and embeddings, and test the memory; status 1 if something failed."""
    from rich.console import Console
    from rich.text import Text

    from deltamem_agents.cli.diagnosis import diagnose

    archive = {"archive_db": archive_db, "archive_index": index, "archive_embeddings": embeddings}
    settings = settings_now(model=model, adapter=adapter, device=device, db=db, **archive)
    findings, checks = [], diagnose(settings)
    console = Console()
    while True:
        with working("checking"):
            finding = next(checks, None)
        if finding is None:
            break
        findings.append(finding)
        if not as_json:
            mark, style = _MARKS[finding.status]
            line = Text.assemble((mark, style), f" {finding.check:<11}{finding.found}")
            console.print(line, soft_wrap=True)
            if finding.advice is not None:
                console.print(Text(f"  {'':<11}→ {finding.advice}"), soft_wrap=True)
    ok = all(finding.status != "failed" for finding in findings)
    if as_json:
        print(json.dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}, ensure_ascii=False))
    if not ok:
        raise typer.Exit(1)
