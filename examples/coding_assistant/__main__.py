"""Run the assistant of this folder: python -m examples.coding_assistant --workspace FOLDER."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from deltamem_agents import DeltaMemError

from .run import run

__all__ = ["main"]


def main(
    workspace: Annotated[Path | None, typer.Option(exists=True, file_okay=False)] = None,
    thread: str | None = None,
    model: str | None = None,
    adapter: str | None = None,
    db: str | None = None,
    script: Path | None = None,
) -> None:
    """Work on a project; the options are those of `deltamem agent coding`."""
    run(workspace, thread=thread, model=model, adapter=adapter, db=db, script=script)


if __name__ == "__main__":
    try:
        typer.run(main)
    except (DeltaMemError, OSError) as error:
        sys.exit(f"error: {error}")
