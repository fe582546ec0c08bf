"""Declare `deltamem agent …`: the example agents, ready to run."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from backbone import ConfigError
from deltamem_agents.cli.options import Adapter, Database, Model

__all__ = ["agents"]

_NEEDED_FOR_DATA = frozenset({"matplotlib", "pandas", "scipy", "sklearn"})

agents = typer.Typer(help="Run an agent with tools: a coding assistant, or a data analyst.", no_args_is_help=True)

Thread = Annotated[
    str | None, typer.Option(help="Name of the conversation; an existing one is resumed.", show_default="one a project")
]
Script = Annotated[
    Path | None, typer.Option(dir_okay=False, help="Text file that is typed instead of you, a message a line.")
]


@agents.command(epilog='Example: deltamem agent coding --workspace ~/project --allow "make check"')
def coding(
    workspace: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder to work in.", show_default="a copy of the sample project"
        ),
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="A command line that may run beside the usual ones; can be repeated.")
    ] = None,
    thread: Thread = None,
    model: Model = None,
    adapter: Adapter = None,
    db: Database = None,
    script: Script = None,
) -> None:
    """Work on a project: list, search, read, write (it asks first), run its tests or linter."""
    options = {"thread": thread, "model": model, "adapter": adapter, "db": db, "script": script}
    _run("coding_assistant", workspace=workspace, allow=allow or (), **options)


@agents.command(epilog="Example: deltamem agent data --csv survey.csv")
def data(
    csv: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Table to work on.", show_default="scikit-learn's diabetes table"
        ),
    ] = None,
    pictures: Annotated[Path, typer.Option(file_okay=False, help="Folder for plots.")] = Path("plots"),
    thread: Thread = None,
    model: Model = None,
    adapter: Adapter = None,
    db: Database = None,
    script: Script = None,
) -> None:
    """Ask about a table: profile, summarize, filter, aggregate, compare, plot; each answer names its assumptions."""
    options = {"thread": thread, "model": model, "adapter": adapter, "db": db, "script": script}
    try:
        _run("data_analyst", csv=csv, pictures=pictures, **options)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED_FOR_DATA:
            raise
        raise ConfigError(
            f"the data analyst needs {error.name}, which is not installed: pip install 'deltamem-agents[data]'"
        ) from error


def _run(name: str, **options: Any) -> None:
    """Start an example; a name instead of an import, because in a source tree it lies outside this package."""
    import_module(f"deltamem_agents.agents.{name}.run").run(**options)
