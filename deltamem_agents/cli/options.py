"""Name the options that several commands share, and find what they and the settings name."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backbone import ConfigError

if TYPE_CHECKING:
    from deltamem_agents.chat_models import ChatDeltaMem
    from deltamem_agents.settings import Settings

__all__ = [
    "Adapter",
    "AsJson",
    "Database",
    "Device",
    "Dtype",
    "Model",
    "Revision",
    "Thread",
    "WindowTokens",
    "archive_url",
    "chat_model",
    "labels",
    "settings_now",
    "threads_url",
]

Thread = Annotated[str, typer.Option(help="Name of the conversation; an existing one is resumed.")]
Model = Annotated[str | None, typer.Option(help="Hub name or path of a backbone; the bundled one if left out.")]
Adapter = Annotated[str | None, typer.Option(help="Path or hub name of the backbone's memory adapter.")]
Device = Annotated[
    str | None,
    typer.Option(help="Where the model runs, such as cuda.", show_default="DELTAMEM_DEVICE, or cpu"),
]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of the backbone.", show_default="DELTAMEM_REVISION, or none")
]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32, bfloat16 or float16.", show_default="DELTAMEM_DTYPE, or the checkpoint's own"),
]
WindowTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Size of the window.", show_default="DELTAMEM_WINDOW_TOKENS, or the model's default"),
]
Database = Annotated[
    str | None,
    typer.Option(
        help="Where threads are kept: sqlite:///file, postgresql://… or memory://.",
        show_default="DELTAMEM_DB, or sqlite:///deltamem.sqlite",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def settings_now(**given: Any) -> "Settings":
    """Return the settings as they are now, below the options that were given; None is an option that was not."""
    from deltamem_agents.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None})


def chat_model(settings: "Settings", **defaults: Any) -> "ChatDeltaMem":
    """Return the model of the settings, not loaded yet; raises ConfigError for options that do not go together."""
    from pydantic import ValidationError

    from deltamem_agents.chat_models import ChatDeltaMem

    try:
        return ChatDeltaMem(**{**defaults, **settings.chat_options})
    except ValidationError as error:
        raise ConfigError(
            "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        ) from error


def threads_url(db: str | None, *, how: str = "--db or DELTAMEM_DB", none: str = "") -> str:
    """Return the database of threads that is named or set, to be read.

    how: how it can be named. none: what the error says beside that. Raises ConfigError for a SQLite file that is not
    there, which opening would make, and for a folder.
    """
    url = settings_now(db=db).db
    return _there(url, url.removeprefix("sqlite:///"), f"{how}{none}")


def archive_url(db: str | None, *, flag: str = "--db", none: str = "") -> str:
    """Return the archive's database that is named or set, as `threads_url` does. flag: how it can be named."""
    url = settings_now(archive_db=db).archive_db
    return _there(url, url.removeprefix("sqlite:///").partition("?")[0], f"{flag} or DELTAMEM_ARCHIVE_DB{none}")


def _there(url: str, file: str, how: str) -> str:
    if url.startswith("sqlite:///") and (Path(file).is_dir() or not Path(file).exists()):
        found = " (a folder)" if Path(file).is_dir() else ""
        raise ConfigError(f"there is no database {Path(file).absolute()}{found}; name the one that is meant with {how}")
    return url


def labels(namespace: str) -> tuple[str, ...]:
    """Read a namespace as a person gives it; raises ConfigError for JSON that cannot be read."""
    if not namespace.startswith("["):
        return tuple(namespace.split("/"))
    try:
        return tuple(json.loads(namespace))
    except ValueError as error:
        raise ConfigError(f'a namespace is labels joined by "/", or a JSON list of them; got {namespace!r}') from error
