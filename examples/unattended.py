"""Let both example agents run a hundred turns alone, and record what each turn costs.

python -m examples.unattended [--turns N] [--json] [--plot FILE]
"""

import itertools
import json
import os
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from langgraph.types import Command
from transformers.utils.logging import disable_progress_bar

from deltamem_agents import ChatDeltaMem, HybridMemory, MemoryStore, open_checkpointer
from deltamem_agents.policy import default_policy
from examples.coding_assistant.agent import coding_agent
from examples.coding_assistant.workspace import Limits, Workspace
from examples.data_analyst.agent import data_agent
from examples.data_analyst.table import diabetes_table

__all__ = ["Turn", "main", "run_unattended"]

_MAX_REPLY_TOKENS = 64
_RECALL_TOKENS = 128
_PREFIX_CACHE_BYTES = 64 * 2**20  # so that it is full early, and what grows afterwards is something else
_THREAD: Any = {"configurable": {"thread_id": "unattended"}}
_COLUMNS = ("age", "bmi", "bp", "s1", "s5", "progression")
_FILES = ("app/parser.py", "app/report.py", "data/config.csv")
_CODING_FACTS = ("We run the tests with make test.", "We lint with make lint.", "Pull requests go to trunk.")
_DATA_FACTS = (
    "Treat missing values with median.",
    "We call it significant below 0.05.",
    "Draw a histogram chart.",
    "Outliers are handled with iqr.",
    "Restrict the analysis to adults.",
)


@dataclass(frozen=True)
class Turn:
    """Hold what one turn cost.

    seconds: of the whole turn, tools included. cpu_seconds: of all processors, commands that were run included; other
    programs disturb it less. resident_bytes: memory of the process after it. checkpoint_bytes: the newest checkpoint's
    row. calls: tools called.
    """

    seconds: float
    cpu_seconds: float
    resident_bytes: int
    checkpoint_bytes: int
    calls: int


def coding_requests() -> Iterator[str]:
    """Yield three conventions, and then work without end."""
    rng = random.Random(0)  # noqa: S311 - a workload, not a secret
    yield from _CODING_FACTS
    while True:
        yield rng.choice(
            (
                "Run the tests.",
                "Run the linter.",
                f"Read {rng.choice(_FILES)}.",
                "List the files in app.",
                "Search for report.",
                f"Write 'fix report' to notes{rng.randrange(10)}.md.",
                "How do we run the tests?",
                f"Check this:\nworker: job {rng.randrange(1000)} finished",
            )
        )


def data_requests() -> Iterator[str]:
    """Yield five assumptions, and then questions without end."""
    rng = random.Random(0)  # noqa: S311 - a workload, not a secret
    yield from _DATA_FACTS
    while True:
        column = rng.choice(_COLUMNS)
        yield rng.choice(
            (
                f"Summarize the {column} column.",
                f"Compare {column} between the groups.",
                f"Average the {column} column.",
                f"Plot the {column} column.",
                "Profile the table.",
                "When is a result significant?",
                "Filter the table.",
            )
        )


def run_unattended(agent: str, model: ChatDeltaMem, turns: int, folder: Path) -> list[Turn]:
    """Run `coding` or `data` for that many turns in an empty folder; every write is approved."""
    database = folder / "threads.sqlite"
    with (
        MemoryStore.from_url(f"sqlite:///{folder / 'archive.sqlite'}") as store,
        HybridMemory(store, default_policy(), namespace=(agent,), budget_tokens=_RECALL_TOKENS) as memory,
        open_checkpointer(f"sqlite:///{database}") as saver,
    ):
        graph, requests = _GRAPHS[agent](model, memory, saver, folder), _REQUESTS[agent]()
        run = []
        for text in itertools.islice(requests, turns):
            begin, cpu = time.perf_counter(), _cpu_seconds()
            calls = _turn(graph, text)
            seconds, cpu = time.perf_counter() - begin, _cpu_seconds() - cpu
            run.append(Turn(seconds, cpu, _resident_bytes(), _checkpoint_bytes(database), calls))
        memory.flush()
    return run


def _coding(model: ChatDeltaMem, memory: HybridMemory, saver: Any, folder: Path) -> Any:
    project = shutil.copytree(Path(__file__).parent / "coding_assistant" / "sample_project", folder / "project")
    limits = Limits(result_characters=model.window[0], shown_lines=3)
    return coding_agent(model, memory, Workspace(Path(project), limits=limits), saver)


def _data(model: ChatDeltaMem, memory: HybridMemory, saver: Any, folder: Path) -> Any:
    return data_agent(model, memory, diabetes_table(), folder / "plots", saver)


_GRAPHS: dict[str, Callable[[ChatDeltaMem, HybridMemory, Any, Path], Any]] = {"coding": _coding, "data": _data}
_REQUESTS: dict[str, Callable[[], Iterator[str]]] = {"coding": coding_requests, "data": data_requests}


def _turn(graph: Any, text: str) -> int:
    """Hold one turn, saying yes to whatever waits for it; return how many tools were called."""
    payload: Any = {"messages": [{"role": "user", "content": text}]}
    calls = 0
    while payload is not None:
        waiting = None
        for update in graph.stream(payload, _THREAD, stream_mode="updates"):
            for node, change in update.items():
                if node == "__interrupt__":
                    waiting = change[0].value
                elif node == "tools":
                    calls += 1
        payload = waiting and Command(resume={"decisions": [{"type": "approve"}] * len(waiting["action_requests"])})
    return calls


def _cpu_seconds() -> float:
    """Return the processor time of this process and of the programs it has run."""
    return sum(os.times()[:4])


def _resident_bytes() -> int:
    """Return the memory that this process holds; Linux only."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _checkpoint_bytes(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        row = connection.execute("SELECT length(checkpoint) FROM checkpoints ORDER BY rowid DESC LIMIT 1").fetchone()
    return int(row[0])


def summarize(turns: list[Turn]) -> dict[str, float]:
    """Return the median turn of the second quarter against that of the last, when the window has long been full."""
    quarter = max(1, len(turns) // 4)
    early, late = turns[quarter : 2 * quarter] or turns, turns[-quarter:]
    return {
        f"{name}, {when}": statistics.median(getattr(turn, name) for turn in part)
        for name in ("seconds", "cpu_seconds", "resident_bytes", "checkpoint_bytes")
        for when, part in (("second quarter", early), ("last quarter", late))
    } | {"calls": sum(turn.calls for turn in turns)}


def save_plot(runs: dict[str, list[Turn]], path: Path) -> None:
    """Draw processor seconds, resident memory and checkpoint bytes of each turn, and save them as a PNG."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - not needed for the figures alone

    figure = Figure(figsize=(14, 4), layout="constrained")
    scales = {
        "cpu_seconds": (1.0, "processor seconds"),
        "resident_bytes": (1e6, "resident MB"),
        "checkpoint_bytes": (1e3, "checkpoint kB"),
    }
    for axes, (name, (scale, label)) in zip(figure.subplots(1, 3), scales.items(), strict=True):
        for agent, turns in runs.items():
            axes.plot(range(1, len(turns) + 1), [getattr(turn, name) / scale for turn in turns], label=agent)
        axes.set(xlabel="turn", ylabel=label, ylim=(0, None))
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main(
    turns: Annotated[int, typer.Option(min=4, help="Turns of each agent.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
    plot: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("runs/unattended.png"),
) -> None:
    """Run both agents unattended, print what their turns cost, and save a picture."""
    disable_progress_bar()  # type: ignore[no-untyped-call] # transformers types no logging
    runs = {}
    for agent in _GRAPHS:
        print(f"… {turns} turns of the {agent} agent", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            model = ChatDeltaMem(max_tokens=_MAX_REPLY_TOKENS, prefix_cache_bytes=_PREFIX_CACHE_BYTES)
            runs[agent] = run_unattended(agent, model, turns, Path(folder))
    save_plot(runs, plot)
    if as_json:
        print(json.dumps({agent: [asdict(turn) for turn in run] for agent, run in runs.items()}))
        return
    for agent, run in runs.items():
        figures = ", ".join(f"{name} {value:,.2f}" for name, value in summarize(run).items())
        print(f"{agent}: {figures}")
    print(f"picture: {plot}")


if __name__ == "__main__":
    typer.run(main)
