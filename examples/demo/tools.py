"""Give the demo's agent its two tools: run one of a few commands, and read a file, both inside one project."""

import subprocess
import sys
from pathlib import Path

from langchain_core.tools import BaseTool, tool

__all__ = ["ALLOWED", "project_tools"]

ALLOWED: dict[str, tuple[str, ...]] = {
    "make test": ("make", "--no-print-directory", "test", f"PYTHON={sys.executable}"),
    "python -m unittest": (sys.executable, "-m", "unittest"),
    "pytest -q": (sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio"),
    "ruff check": (sys.executable, "-m", "ruff", "check"),
}
"""What the agent may run, word for word; all of the test commands would work in the sample project."""

_TIMEOUT_SECONDS = 30
_OUTPUT_LINES = 2  # a model of a few million parameters reads short results best
_FILE_CHARACTERS = 2_000


def project_tools(root: Path) -> list[BaseTool]:
    """Return `run_command` and `read_file`, both confined to the folder `root`."""

    @tool
    def run_command(command: str) -> str:
        """Run a command in the project."""
        arguments = ALLOWED.get(" ".join(command.split()))
        if arguments is None:
            return f"refused: {command!r} is not one of {', '.join(ALLOWED)}"
        try:
            done = subprocess.run(
                arguments, cwd=root, timeout=_TIMEOUT_SECONDS, capture_output=True, text=True, check=False
            )
        except subprocess.TimeoutExpired:
            return f"stopped: {command} took more than {_TIMEOUT_SECONDS} seconds"
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        failed = [f"exit code {done.returncode}"] if done.returncode else []
        return "\n".join([*failed, *lines[-_OUTPUT_LINES:]])

    @tool
    def read_file(path: str) -> str:
        """Read a file of the project."""
        file = (root / path).resolve()
        if not file.is_relative_to(root.resolve()):
            return f"refused: {path!r} lies outside the project"
        if not file.is_file():
            return f"no such file: {path}"
        return file.read_text(encoding="utf-8")[:_FILE_CHARACTERS]

    return [run_command, read_file]
