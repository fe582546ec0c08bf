"""Confine an agent to one folder: every path and every command that it names goes through here."""

import difflib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deltamem_agents.cli.escaping import printable

from .commands import run_confined, split_command
from .left_out import LeftOut

__all__ = ["DEFAULT_COMMANDS", "Limits", "RefusedError", "Workspace"]

DEFAULT_COMMANDS = (
    "make test", "make lint", "make format", "make build", "pytest -q", "python -m unittest", "python -m build",
    "ruff check", "ruff format", "mypy src", "tox -e unit", "tox -e lint", "nox -s tests", "nox -s lint",
    "npm test", "npm run lint", "npm run build", "cargo test", "cargo clippy", "cargo build", "go test", "go build",
)  # fmt: skip
"""What may run, word for word; anything else is refused before it is looked at."""

_UNSEEN = frozenset({".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache"})
_BESIDE_DATABASES = ("", "-wal", "-shm", "-journal", ".lock")
_LOOKED_AT_BYTES = 1024
_CUT = "[…]"


class RefusedError(Exception):
    """Say why something is not done; the text goes to the model."""


@dataclass(frozen=True)
class Limits:
    """Bound what one call may cost.

    result_characters: what the model is shown at once; a small window needs small results. shown_lines: how many lines
    of a command's output, from its end, it is shown; None leaves that to result_characters. output_characters: how much
    of the output is kept. file_bytes: the largest file that is searched, written, or read. matches: lines that a search
    returns. seconds: how long a command may run.
    """

    result_characters: int = 4_000
    shown_lines: int | None = None
    output_characters: int = 8_000
    file_bytes: int = 1_000_000
    matches: int = 20
    seconds: float = 120.0


class Workspace:
    """Read, search, write and run inside `root`, and nowhere else; whatever else is asked for raises RefusedError.

    Paths are resolved first, symbolic links included, and the file that is opened at the end is not a link. commands:
    the command lines that may run, word for word, without a shell. They run with the rights of this process: what a
    project's own tests do is not confined. One that cannot be split raises ConfigError. private: files and folders that
    are not the agent's business wherever they lie, such as its own databases; what SQLite puts beside them is private
    as well.
    """

    def __init__(
        self,
        root: Path,
        commands: Iterable[str] = DEFAULT_COMMANDS,
        limits: Limits | None = None,
        private: Iterable[Path] = (),
    ) -> None:
        self.root = root.resolve(strict=True)
        self._private = [Path(f"{path.resolve()}{beside}") for path in private for beside in _BESIDE_DATABASES]
        self.commands = {" ".join(command.split()): split_command(command) for command in commands}
        self.limits = limits or Limits()

    def list(self, folder: str) -> str:
        """Return the names in a folder, one a line; those of folders end with a slash."""
        path = self._inside(folder)
        if not path.is_dir():
            raise RefusedError(f"{folder!r} is not a folder of the project")
        names = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir() if entry.name not in _UNSEEN)
        return self._head("\n".join(names)) or "the folder is empty"

    def search(self, text: str) -> str:
        """Return the lines of text files that hold `text`, each as path:line: text, below what was left out."""
        if not text.strip():
            raise RefusedError("an empty text is everywhere; name what to search for")
        found: list[str] = []
        left_out = LeftOut()
        for path, content in self._texts(left_out):
            name, lines = path.relative_to(self.root), content.splitlines()
            found += [f"{name}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if text in line]
            if len(found) >= self.limits.matches:
                del found[self.limits.matches :]
                found.append(f"{_CUT} only the first {len(found)} are shown")
                break
        return self._head(f"{left_out}\n".lstrip() + "\n".join(found or ["nothing found"]))

    def read(self, name: str) -> str:
        """Return the text of a file, or, for a name such as app/main.py:40, what begins at that line."""
        path, _, line = name.rpartition(":")
        path, first = (path, int(line)) if path and line.isdecimal() else (name, 1)
        lines = self._require_text(self._file(path)).splitlines(keepends=True)[max(0, first - 1) :]
        kept, room = 0, self.limits.result_characters
        while kept < len(lines) and len(lines[kept]) <= room:
            room -= len(lines[kept])
            kept += 1
        if kept == len(lines):
            return "".join(lines) or "the file is empty"
        if kept == 0:
            return lines[0][: self.limits.result_characters] + _CUT
        return "".join(lines[:kept]) + f"{_CUT} goes on at {path}:{first + kept}"

    def write(self, name: str, content: str) -> str:
        """Write a file, and the folders above it where there are none."""
        path = self._writable(name, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(_open_no_link(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(content.encode(errors="replace"))
        return f"wrote {len(content)} characters"

    def preview(self, name: str, content: str) -> str:
        """Return what `write` would change, as a diff; the reason in words if it would be refused.

        Control characters are escaped: none of them can hide a line from the person who approves.
        """
        shown = printable(name).replace("\n", "\\n")
        try:
            path = self._writable(name, content)
            old = self._require_text(path) if path.exists() else ""
        except (RefusedError, OSError) as error:
            return f"{shown}: will be refused, {error}"
        lines = difflib.unified_diff(_lines(old), _lines(content), f"{shown} now", f"{shown} then", lineterm="")
        return "\n".join(map(printable, lines)) or f"{shown}: no line changes"

    def run(self, command: str) -> str:
        """Run an allowed command, and return the end of what it printed, after its exit code if that is not 0."""
        arguments = self.commands.get(" ".join(command.split()))
        if arguments is None:
            raise RefusedError(f"{command!r} is not one of: {', '.join(self.commands)}")
        try:
            done = run_confined(
                arguments, self.root, seconds=self.limits.seconds, characters=self.limits.output_characters
            )
        except FileNotFoundError as error:
            raise RefusedError(f"there is no program {arguments[0]!r} here") from error
        if done.code is None:
            return f"stopped after {self.limits.seconds:g} seconds\n{done.output}".rstrip()
        failed = f"exit code {done.code}\n" if done.code else ""
        return (failed + (f"{_CUT}\n" * done.cut) + done.output).rstrip() or "ok"

    def shown(self, output: str) -> str:
        """Return what the model is shown of a command's output: the exit code if it begins with one, and its end."""
        room, count = self.limits.result_characters, self.limits.shown_lines
        if count is None and len(output) <= room:
            return output
        lines = [line for line in output.splitlines() if line.strip()]
        code = lines[:1] if lines and lines[0].startswith("exit code ") else []
        text = "\n".join(lines[len(code) :][-(count or len(lines)) :])
        return "\n".join([*code, text if len(text) <= room else _CUT + text[-room:]])

    def _inside(self, name: str) -> Path:
        try:
            path = (self.root / name).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # loops of links, names too long, NUL
            raise RefusedError(f"{name!r} is no path that can be followed") from error
        if not path.is_relative_to(self.root):
            raise RefusedError(f"{name!r} lies outside the project")
        if self._is_private(path):
            raise RefusedError(f"{name!r} belongs to the assistant's own memory, not to the project")
        return path

    def _is_private(self, path: Path) -> bool:
        return any(path.is_relative_to(one) for one in self._private)

    def _file(self, name: str) -> Path:
        path = self._inside(name)
        if not path.is_file():
            raise RefusedError(f"there is no file {name!r}")
        if path.stat().st_size > self.limits.file_bytes:
            raise RefusedError(f"{name!r} is larger than {self.limits.file_bytes:,} bytes")
        return path

    def _writable(self, name: str, content: str) -> Path:
        path = self._inside(name)
        if path == self.root or path.is_dir():
            raise RefusedError(f"{name!r} is a folder")
        if ".git" in (part.lower() for part in path.relative_to(self.root).parts):
            raise RefusedError("the repository's own files run code, and are not written")
        if len(content.encode(errors="replace")) > self.limits.file_bytes:
            raise RefusedError(f"a file may have {self.limits.file_bytes:,} bytes at most")
        if path.is_file():
            self._require_text(path)
        return path

    def _files(self, left_out: LeftOut) -> Iterator[Path]:
        """Yield the files that may be read, in the order of their names; links are not followed."""

        def locked(error: OSError) -> None:
            left_out.add("cannot be read", f"{Path(str(error.filename)).relative_to(self.root)}/")

        for folder, folders, names in os.walk(self.root, onerror=locked):
            folders[:] = sorted(name for name in folders if name not in _UNSEEN)
            yield from (path for name in sorted(names) if not self._is_private(path := Path(folder, name)))

    def _texts(self, left_out: LeftOut) -> Iterator[tuple[Path, str]]:
        """Yield files with their texts; what links and pipes lead to lies elsewhere, and is not counted as left out."""
        for path in self._files(left_out):
            name = path.relative_to(self.root)
            try:
                found = path.lstat()
                if not stat.S_ISREG(found.st_mode):
                    continue
                if found.st_size > self.limits.file_bytes:
                    left_out.add(f"larger than {self.limits.file_bytes:,} bytes", name)
                elif (text := self._text(path)) is None:
                    left_out.add("no text", name)
                else:
                    yield path, text
            except (OSError, RefusedError):
                left_out.add("cannot be read", name)

    def _require_text(self, path: Path) -> str:
        text = self._text(path)
        if text is None:
            raise RefusedError(f"{path.name!r} is no text file")
        return text

    def _text(self, path: Path) -> str | None:
        """Return the text of a file, None for one that is none: text has no NUL at its beginning."""
        with os.fdopen(_open_no_link(path, os.O_RDONLY), "rb") as file:
            content = file.read(self.limits.file_bytes)
        return None if b"\0" in content[:_LOOKED_AT_BYTES] else content.decode(errors="replace")

    def _head(self, text: str) -> str:
        room = self.limits.result_characters
        return text if len(text) <= room else text[:room] + _CUT


def _lines(text: str) -> list[str]:
    # Only a line feed ends a line: what else str.splitlines takes for an end would change unseen.
    return text.removesuffix("\n").split("\n") if text else []


def _open_no_link(path: Path, flags: int) -> int:
    # A link that was put in the file's place after it was resolved is not followed, and a pipe does not block.
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RefusedError(f"{path.name!r} is no plain file")
    return handle
