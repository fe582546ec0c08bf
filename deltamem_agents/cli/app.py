"""Gather the commands of `deltamem`, and turn expected errors into one line."""

import sqlite3
import sys

import typer

from backbone import DeltaMemError
from deltamem_agents.cli.adapter_group import adapters
from deltamem_agents.cli.archive import archive
from deltamem_agents.cli.eval_group import evaluation
from deltamem_agents.cli.options import Adapter, Database, Model, Thread
from deltamem_agents.cli.policy_group import policies

__all__ = ["app", "main"]

app = typer.Typer(
    name="deltamem",
    help="Talk to an agent whose memory outlives its prompt, and measure what it remembers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(evaluation, name="eval")
app.add_typer(adapters, name="adapter")
app.add_typer(policies, name="policy")
app.add_typer(archive, name="archive")


@app.callback()
def _root() -> None:
    """Keep `deltamem` a group of commands."""


@app.command()
def chat(
    thread: Thread = "default",
    model: Model = None,
    adapter: Adapter = None,
    db: Database = None,
) -> None:
    """Talk to an agent; Ctrl-C stops a reply, Ctrl-D ends the program.

    Options that are left out are taken from DELTAMEM_MODEL, DELTAMEM_ADAPTER and DELTAMEM_DB.
    """
    from deltamem_agents.cli.chat import run_chat

    run_chat(thread=thread, model=model, adapter=adapter, db=db)


def main() -> None:
    """Run the command line; an expected error becomes one line on stderr and exit status 1."""
    try:
        app()
    except (DeltaMemError, OSError, sqlite3.Error) as error:
        typer.secho(error_line(error), err=True, fg=typer.colors.RED)
        sys.exit(1)


def error_line(error: Exception) -> str:
    """Return the message of `error` as a single line."""
    return f"error: {' '.join(str(error).split())}"
