"""Name the options that several commands share."""

from typing import Annotated

import typer

__all__ = ["Adapter", "AsJson", "Database", "Model", "Thread"]

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
