"""Show what a command is doing and what went wrong, on stderr; progress only where a person watches."""

import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from backbone import DeltaMemError
from deltamem_agents.cli.escaping import printable

__all__ = ["error_line", "errors_as_lines", "print_error", "progress", "quiet_loading", "watched", "working"]

_STEP = 100  # lines


@contextmanager
def progress(what: str, *, hidden: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Give a function that takes how much is done, and how much there is."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=hidden or not console.is_interactive) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def watched(lines: Iterable[str], told: Callable[[int, int], None], total: Callable[[], int]) -> Iterator[str]:
    """Yield lines, and tell `told` how many were taken and how many there are; `total` is asked after the first."""
    for number, line in enumerate(lines, 1):
        yield line
        if number % _STEP == 0:
            told(number, total())


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show that something goes on whose length is not known."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(f"{what} …"):
        yield


def quiet_loading() -> None:
    """Turn off the bars that transformers draws while it loads a model that is on disk anyway."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call] # transformers types no logging


@contextmanager
def errors_as_lines() -> Iterator[None]:
    """Run a program; an expected error becomes one line on stderr and exit status 1.

    A reader of its output that has gone, such as `head`, is no error.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, where it can still be told what a reader that has gone means
    except SystemExit as stop:
        # typer and rich end the program with status 1 when they meet it.
        sys.exit(0 if isinstance(stop.__context__, BrokenPipeError) else stop.code)
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at Python's own end
        sys.exit(error.__context__.code if isinstance(error.__context__, SystemExit) else 0)
    except _expected_errors() as error:
        print_error(error_line(error))
        sys.exit(1)


def _expected_errors() -> tuple[type[Exception], ...]:
    """Name the errors that come from what was asked or from the surroundings.

    A library that was not loaded has raised none of its own, so none is loaded here.
    """
    named = {"sqlalchemy.exc": "SQLAlchemyError", "psycopg": "Error", "torch": "OutOfMemoryError"}
    others = [getattr(sys.modules[module], name) for module, name in named.items() if module in sys.modules]
    return (DeltaMemError, OSError, UnicodeError, sqlite3.Error, *others)


def error_line(error: Exception) -> str:
    """Return the message of `error` as a single line; of a database's error, what the database said."""
    said = str(getattr(error, "orig", None) or error)
    return f"error: {' '.join(said.split()) or type(error).__name__}"


def print_error(line: str) -> None:
    """Print one line of an error to stderr, red unless NO_COLOR is set or it goes into a pipe."""
    Console(stderr=True).print(Text(printable(line), style="red"), soft_wrap=True)
