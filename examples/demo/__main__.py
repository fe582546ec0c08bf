"""Run the demo: two processes one after the other on one database, then a table.

python -m examples.demo [FOLDER]
"""

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["main"]

_EARLY = slice(1, 6)
_LATE = slice(-5, None)


def main(folder: Path) -> int:
    """Play both acts in `folder`, which is emptied first; return 0 if the command that ran is the one that was told."""
    begin = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copytree(Path(__file__).parent / "sample_project", folder / "project")
    for act in ("tell", "ask"):
        done = subprocess.run([sys.executable, "-u", "-m", f"examples.demo.{act}", str(folder)], check=False)
        if done.returncode:
            return done.returncode
    told = json.loads((folder / "tell.json").read_text(encoding="utf-8"))
    asked = json.loads((folder / "ask.json").read_text(encoding="utf-8"))
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print()
    console.print(results_table(asked["answers"]))
    _print_figures(console, told["seconds"], asked)
    console.print(f"picture of the working memory: {folder / 'memory.png'}")
    console.print(f"the demo took {time.perf_counter() - begin:.0f} seconds")
    return 0 if asked["run"]["command"] == asked["run"]["told"] else 1


def results_table(answers: list[Mapping[str, Any]]) -> Table:
    """Return one row per convention: in the prompt or not, and what was answered with each memory."""
    table = Table(title="Asked in a new process", show_lines=True)
    for heading in ("fact", "in the prompt?", "with memory", "memory zeroed", "another thread's memory"):
        table.add_column(heading)
    for answer in answers:
        replies = (answer[name] for name in ("memory", "zeroed", "other thread"))
        marked = [f"{'[green]✓' if right else '[red]✗'}[/] {_plain(text)}" for text, right in replies]
        table.add_row(answer["fact"], "yes" if answer["in prompt"] else "no", *marked)
    return table


def _plain(text: str) -> str:
    """Return a reply so that rich prints it as it is."""
    return " ".join(text.split()).replace("[", r"\[")


def _print_figures(console: Console, seconds: list[float], asked: Mapping[str, Any]) -> None:
    run = asked["run"]
    same = "the command it was told" if run["command"] == run["told"] else f"but was told {run['told']}"
    console.print(f"asked to run the tests, it ran: {run['command'] or 'nothing'} ({same})", highlight=False)
    early, late = statistics.median(seconds[_EARLY]), statistics.median(seconds[_LATE])
    console.print(
        f"seconds per turn: {early:.2f} at the start, {late:.2f} after {len(seconds)} turns\n"
        f"checkpoint: {asked['checkpoint_bytes']:,} bytes, {asked['memory_bytes']:,} of them working memory",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")))
