"""Run one program without a shell, for a limited time, and keep the end of what it prints."""

import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from deltamem_agents import ConfigError

__all__ = ["Finished", "run_confined", "split_command"]

_PIECE_BYTES = 65_536


@dataclass(frozen=True)
class Finished:
    """Hold a program's exit code (None if it was stopped), the end of its output, and whether more came before."""

    code: int | None
    output: str
    cut: bool


def run_confined(arguments: Sequence[str], folder: Path, *, seconds: float, characters: int) -> Finished:
    """Run a program in `folder`; when its time is up, it and everything it has started are killed.

    It reads no input and sees no variable of this process but PATH and HOME, where compilers keep what they have built,
    so that no key in the environment leaves by way of a test. Raises FileNotFoundError if there is no such program.
    """
    deadline = time.monotonic() + seconds
    process = subprocess.Popen(
        arguments,
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        with process.stdout as stdout:  # type: ignore[union-attr] # it is a pipe
            kept, total = _end_of(stdout, deadline, 4 * characters)
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        code = process.returncode
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    text = kept.decode(errors="replace")
    return Finished(code, text[-characters:].strip("\n"), total > len(kept) or len(text) > characters)


def _end_of(stream: IO[bytes], deadline: float, limit: int) -> tuple[bytes, int]:
    """Read until the stream ends or the time is up; return its last bytes, and how many there were."""
    kept, total = b"", 0
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                break
            piece = os.read(stream.fileno(), _PIECE_BYTES)
            if not piece:
                break
            total += len(piece)
            kept = (kept + piece)[-limit:]
    return kept, total


def _environment() -> dict[str, str]:
    """Return HOME if there is one, and PATH with the programs that stand beside this Python first."""
    path = [str(Path(sys.executable).parent), *os.get_exec_path()]
    kept = {"PATH": os.pathsep.join(path), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    with suppress(RuntimeError):  # a user without a home
        kept["HOME"] = str(Path.home())
    return kept


def split_command(command: str) -> tuple[str, ...]:
    """Return the words of a command line that may be allowed; raises ConfigError for one that cannot be split."""
    try:
        arguments = tuple(shlex.split(command))
    except ValueError as error:
        raise ConfigError(f"{command!r} is no command line that may be allowed: {error}") from error
    if not arguments:
        raise ConfigError("an empty command line cannot be allowed")
    return arguments
