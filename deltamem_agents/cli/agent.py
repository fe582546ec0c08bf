"""Declare `deltamem agent …`: the example agents, ready to run."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from backbone import ConfigError
from deltamem_agents.cli.archive_options import ArchiveDatabase, Embeddings, Index
from deltamem_agents.cli.options import Adapter, Database, Device, Dtype, Model, Revision, WindowTokens
from deltamem_agents.cli.progress import working
from deltamem_agents.installing import install_extra

__all__ = ["agents", "coding_command", "data_command"]

_NEEDED_FOR_DATA = frozenset({"matplotlib", "pandas", "scipy", "sklearn"})

agents = typer.Typer(help="Run an agent with tools: a coding assistant, or a data analyst.", no_args_is_help=True)

Thread = Annotated[
    str | None, typer.Option(help="Name of the conversation; an existing one is resumed.", show_default="one a project")
]
Script = Annotated[
    Path | None, typer.Option(dir_okay=False, help="Text file that is typed instead of you, a message a line.")
]


JsonLines = Annotated[
    bool, typer.Option("--json", help="Print a JSON object a line for what happens in a --script, instead of text.")
]


def coding_command(package: str) -> Callable[..., None]:
    """Return the command that runs the coding assistant of a package, which is imported when the command is called."""

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
        revision: Revision = None,
        device: Device = None,
        dtype: Dtype = None,
        window_tokens: WindowTokens = None,
        db: Database = None,
        archive_db: ArchiveDatabase = None,
        index: Index = None,
        embeddings: Embeddings = None,
        script: Script = None,
        as_json: JsonLines = False,
    ) -> None:
        """Work on a project: list, search, read, write (it asks first), run its tests or linter."""
        chosen: dict[str, Any] = {"model": model, "adapter": adapter, "revision": revision, "device": device}
        chosen |= {"dtype": dtype, "window_tokens": window_tokens, "db": db}
        chosen |= {"archive_db": archive_db, "archive_index": index, "archive_embeddings": embeddings}
        _run(package, workspace=workspace, allow=allow or (), thread=thread, script=script, as_json=as_json, **chosen)

    return coding


def data_command(package: str) -> Callable[..., None]:
    """Return the command that runs the data analyst of a package, which is imported when the command is called."""

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
        revision: Revision = None,
        device: Device = None,
        dtype: Dtype = None,
        window_tokens: WindowTokens = None,
        db: Database = None,
        archive_db: ArchiveDatabase = None,
        index: Index = None,
        embeddings: Embeddings = None,
        script: Script = None,
        as_json: JsonLines = False,
    ) -> None:
        """Ask about a table: profile, summarize, filter, aggregate, compare, plot; answers name their assumptions."""
        chosen: dict[str, Any] = {"model": model, "adapter": adapter, "revision": revision, "device": device}
        chosen |= {"dtype": dtype, "window_tokens": window_tokens, "db": db}
        chosen |= {"archive_db": archive_db, "archive_index": index, "archive_embeddings": embeddings}
        try:
            _run(package, csv=csv, pictures=pictures, thread=thread, script=script, as_json=as_json, **chosen)
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in _NEEDED_FOR_DATA:
                raise
            raise ConfigError(
                f"the data analyst needs {error.name}, which is not installed: {install_extra('data')}"
            ) from error

    return data


def _run(package: str, *, script: Path | None, as_json: bool, **options: Any) -> None:
    if as_json and script is None:
        raise typer.BadParameter("--json is for a --script: a person reads text")
    with working("loading"):
        program = import_module(f"{package}.run")
    program.run(script=script, as_json=as_json, **options)


# Names instead of imports, because in a source tree the examples lie outside this package.
agents.command(epilog='Example: deltamem agent coding --workspace ~/project --allow "make check"')(
    coding_command("deltamem_agents.agents.coding_assistant")
)
agents.command(epilog="Example: deltamem agent data --csv survey.csv")(
    data_command("deltamem_agents.agents.data_analyst")
)
