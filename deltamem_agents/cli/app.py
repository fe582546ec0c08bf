"""Gather the commands of `deltamem`, and turn expected errors into one line."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from deltamem_agents.cli.adapter_group import adapters
from deltamem_agents.cli.agent import agents
from deltamem_agents.cli.audit import audit
from deltamem_agents.cli.bench import bench
from deltamem_agents.cli.doctor import doctor
from deltamem_agents.cli.eval_group import evaluation
from deltamem_agents.cli.forget import forget
from deltamem_agents.cli.options import (
    Adapter,
    Database,
    Device,
    Dtype,
    Model,
    Revision,
    Thread,
    WindowTokens,
    settings_now,
)
from deltamem_agents.cli.policy_group import policies
from deltamem_agents.cli.progress import errors_as_lines
from deltamem_agents.cli.quarantine import archive
from deltamem_agents.cli.threads import threads
from deltamem_agents.cli.timeline import show, thread

__all__ = ["app", "main"]

app = typer.Typer(
    name="deltamem",
    help="Talk to an agent whose memory outlives its prompt, and measure what it remembers.",
    epilog="Example: deltamem chat --thread notes",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(evaluation, name="eval")
app.add_typer(adapters, name="adapter")
app.add_typer(policies, name="policy")
app.add_typer(archive, name="archive")
app.add_typer(thread, name="thread")
app.command(epilog="Example: deltamem doctor --json")(doctor)
app.command(epilog="Example: deltamem bench turns recall --quick")(bench)
app.add_typer(agents, name="agent")
app.add_typer(audit, name="audit")
threads.command(epilog="Example: deltamem threads show notes")(show)
app.add_typer(threads, name="threads")
app.command(epilog="Example: deltamem forget -n acme --thread notes --reason 'asked to' --dry-run")(forget)

Config = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="Settings file, TOML.",
        show_default="DELTAMEM_CONFIG, or deltamem.toml where there is one",
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version("deltamem-agents"))
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and end.")
]


@app.callback()
def _root(context: typer.Context, config: Config = None, _version: Version = False) -> None:
    """Take the settings of every command from a file."""
    if config is not None:
        from deltamem_agents.settings import use_settings_file

        context.with_resource(use_settings_file(config))


@app.command(epilog="Example: deltamem chat --thread notes")
def chat(
    thread: Thread = "default",
    model: Model = None,
    adapter: Adapter = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    window_tokens: WindowTokens = None,
    db: Database = None,
) -> None:
    """Talk to an agent; Ctrl-C stops a reply, Ctrl-D ends the program.

    Options that are left out are taken from DELTAMEM_* and the settings file.
    """
    from deltamem_agents.cli.chat import run_chat

    chosen = {"model": model, "adapter": adapter, "revision": revision, "device": device, "dtype": dtype}
    run_chat(thread, settings_now(db=db, window_tokens=window_tokens, **chosen))


def main() -> None:
    """Run the command line; an expected error becomes one line on stderr and exit status 1."""
    with errors_as_lines():
        app(prog_name="deltamem")
