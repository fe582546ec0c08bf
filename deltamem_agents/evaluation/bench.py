"""Measure the whole: turns, first tokens, storage, overhead, start-up and recall, each as a ratio within one run.

python -m deltamem_agents.evaluation.bench [--quick] [--json] [--plot FILE]
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from deltamem_agents.evaluation.bench_plot import save_plot
from deltamem_agents.evaluation.bench_report import print_report
from deltamem_agents.evaluation.first_token import compare_first_tokens
from deltamem_agents.evaluation.recall import RecallOptions, run_recall
from deltamem_agents.evaluation.redaction import measure_redaction
from deltamem_agents.evaluation.threads import compare_turns, file_bytes_without_memory, run_thread

__all__ = ["FULL", "QUICK", "Scale", "main", "measure"]


@dataclass(frozen=True)
class Scale:
    """Set how much is measured.

    turns: turns of each long thread. compared: turns set against the full history. first_token: the turn whose first
    token is timed with and without a prefix cache. prefill_tokens: prompt of the overhead measurement. recall: (facts,
    distance in tokens) of each row. recall_threads: conversations a row. starts: times each program is started.
    repeats: runs of which a median is taken. quick_ratios: measure bench-512 at its smallest.
    """

    turns: int
    compared: tuple[int, ...]
    first_token: int
    prefill_tokens: int
    recall: tuple[tuple[int, int], ...]
    recall_threads: int
    starts: int
    repeats: int
    quick_ratios: bool


FULL = Scale(300, (10, 50, 200), 50, 4096, ((4, 500), (8, 500), (4, 1000), (4, 2000)), 12, 5, 5, quick_ratios=False)
QUICK = Scale(12, (4, 10), 2, 256, ((2, 100),), 2, 1, 1, quick_ratios=True)


def measure(scale: Scale) -> dict[str, Any]:
    """Return every figure as plain data; progress goes to stderr."""
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure_threads(scale, Path(folder))
    _progress(f"first token of turn {scale.first_token}")
    first = compare_first_tokens(scale.first_token)
    figures["first_token"] = asdict(first) | {"ratio": first.ratio}
    _progress("overhead of the memory")
    figures["overhead"] = _measure_overhead(scale)
    _progress("bench-512, a few minutes")
    figures["ratios"] = _measure_ratios(scale)
    _progress("start of the command line")
    figures["start"] = _measure_start(scale.starts)
    _progress("redaction of secrets")
    figures["redaction"] = measure_redaction(scale.repeats)
    _progress("recall")
    figures["recall"] = [
        {"facts": facts, "distance": distance}
        | dict(run_recall(RecallOptions(facts, distance, threads=scale.recall_threads)))
        for facts, distance in scale.recall
    ]
    return figures


def _measure_threads(scale: Scale, folder: Path) -> dict[str, Any]:
    _progress(f"{scale.turns} turns with memory")
    kept = run_thread(scale.turns, folder / "kept.sqlite", trim_history=False)
    _progress(f"{scale.turns} turns with memory, absorbed messages trimmed")
    trimmed = run_thread(scale.turns, folder / "trimmed.sqlite", trim_history=True)
    _progress("the same turns with the full history")
    compared = compare_turns(kept, scale.compared, repeats=scale.repeats)
    return {
        "turns": [asdict(time) | {"ratio": time.ratio} for time in compared],
        "seconds_of_each_turn": list(kept.seconds),
        "file_bytes": {
            "turns": scale.turns,
            "memory, trimmed": trimmed.file_bytes,
            "memory, everything kept": kept.file_bytes,
            "no memory, everything kept": file_bytes_without_memory(kept, folder / "without.sqlite"),
        },
    }


def _measure_overhead(scale: Scale) -> list[dict[str, Any]]:
    """Measure prefill and decoding of the bundled backbone."""
    overhead: list[dict[str, Any]] = _run_backbone_bench(
        "model", "--tokens", str(scale.prefill_tokens), "--repeats", str(scale.repeats)
    )
    return overhead


def _measure_ratios(scale: Scale) -> dict[str, float]:
    """Measure the fixed case bench-512."""
    ratios: dict[str, float] = _run_backbone_bench("cpu", *(["--quick"] if scale.quick_ratios else []))
    return ratios


def _run_backbone_bench(*arguments: str) -> Any:
    """Run the backbone's own benchmark, in a process of its own."""
    command = [sys.executable, "-m", "backbone.bench", *arguments, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _measure_start(starts: int) -> dict[str, float]:
    """Time `deltamem --help` against importing typer and langchain's messages, started in turns."""
    programs = {
        "help_seconds": [sys.executable, "-c", "from deltamem_agents.cli import main; main()", "--help"],
        "import_seconds": [sys.executable, "-c", "import langchain_core.messages, typer"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(starts):
        for name, command in programs.items():
            begin = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return medians | {"ratio": medians["help_seconds"] / medians["import_seconds"]}


def _progress(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Measure little: does every part run?")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    plot: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("runs/bench.png"),
) -> None:
    """Measure this machine and print the figures; save a picture of them."""
    figures = measure(QUICK if quick else FULL)
    plot.parent.mkdir(parents=True, exist_ok=True)
    save_plot(figures, plot)
    if as_json:
        print(json.dumps(figures))
        return
    print_report(figures, Console())
    print(f"picture: {plot}")


if __name__ == "__main__":
    typer.run(main)
