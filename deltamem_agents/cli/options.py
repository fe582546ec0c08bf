"""Name the options that several commands share, and read those that need it."""

import json
from typing import Annotated

import typer

from backbone import ConfigError

__all__ = ["Adapter", "AsJson", "Database", "Model", "Thread", "labels"]

Thread = Annotated[str, typer.Option(help="Name of the conversation; an existing one is resumed.")]
Model = Annotated[str | None, typer.Option(help="Hub name or path of a backbone; the bundled one if left out.")]
Adapter = Annotated[str | None, typer.Option(help="Path or hub name of the backbone's memory adapter.")]
Database = Annotated[
    str | None,
    typer.Option(
        help="Where threads are kept: sqlite:///file, postgresql://… or memory://.",
        show_default="DELTAMEM_DB, or sqlite:///deltamem.sqlite",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def labels(namespace: str) -> tuple[str, ...]:
    """Read a namespace as a person gives it; raises ConfigError for JSON that cannot be read."""
    if not namespace.startswith("["):
        return tuple(namespace.split("/"))
    try:
        return tuple(json.loads(namespace))
    except ValueError as error:
        raise ConfigError(f'a namespace is labels joined by "/", or a JSON list of them; got {namespace!r}') from error
