"""Declare `deltamem policy …`: try policies without writing anything."""

from pathlib import Path
from typing import Annotated

import typer

from deltamem_agents.cli.options import AsJson

__all__ = ["policies"]

policies = typer.Typer(help="Try policies without writing anything.", no_args_is_help=True)

MessageSource = Annotated[str, typer.Option(help="Who says it: user, agent, system, tool:<name>, web or import.")]
PolicyPath = Annotated[
    Path | None, typer.Option("--policy", help="Policy file, TOML or YAML.", show_default="built in")
]


@policies.command(epilog="Example: deltamem policy explain 'my password is hunter2' --source user")
def explain(
    message: Annotated[str, typer.Argument(help="Text of the message.")],
    source: MessageSource = "user",
    policy: PolicyPath = None,
    as_json: AsJson = False,
) -> None:
    """Show what each policy decides about a message, and the strictest of it."""
    from deltamem_agents.cli.policy import explain as run

    run(message, source=source, policy=policy, as_json=as_json)


@policies.command("test", epilog="Example: deltamem policy test policy.toml")
def try_policy(
    file: Annotated[Path, typer.Argument(help="Policy file with examples.")],
    policy: PolicyPath = None,
    as_json: AsJson = False,
) -> None:
    """Compare the decisions about a file's examples with what it expects; status 1 if one differs."""
    from deltamem_agents.cli.policy import try_examples

    try_examples(file, policy=policy, as_json=as_json)
