"""Measure the whole: turns, first tokens, storage, overhead, start-up and recall, each as a ratio within one run."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from backbone import ConfigError
from deltamem_agents.evaluation.archive_bench import measure_archive
from deltamem_agents.evaluation.first_token import compare_first_tokens
from deltamem_agents.evaluation.recall import RecallOptions, run_recall
from deltamem_agents.evaluation.redaction import measure_redaction
from deltamem_agents.evaluation.threads import compare_turns, file_bytes_without_memory, run_thread

__all__ = ["FULL", "PARTS", "QUICK", "Scale", "measure"]


@dataclass(frozen=True)
class Scale:
    """Set how much is measured.

    turns: turns of each long thread. compared: turns set against the full history. first_token: the turn whose first
    token is timed with and without a prefix cache. prefill_tokens: prompt of the overhead measurement. recall: (facts,
    distance in tokens) of each row. recall_threads: conversations a row. starts: times each program is started.
    repeats: runs of which a median is taken. quick_ratios: measure bench-512 at its smallest. archive: records of each
    archive that is searched, with as many questions as `questions` says.
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
    archive: tuple[int, ...]
    questions: int


FULL = Scale(
    turns=300,
    compared=(10, 50, 200),
    first_token=50,
    prefill_tokens=4096,
    recall=((4, 500), (8, 500), (4, 1000), (4, 2000)),
    recall_threads=12,
    starts=5,
    repeats=5,
    quick_ratios=False,
    archive=(10_000, 100_000),
    questions=100,
)
QUICK = Scale(
    turns=12,
    compared=(4, 10),
    first_token=2,
    prefill_tokens=256,
    recall=((2, 100),),
    recall_threads=2,
    starts=1,
    repeats=1,
    quick_ratios=True,
    archive=(200,),
    questions=10,
)


def measure(scale: Scale, parts: Collection[str] = ()) -> dict[str, Any]:
    """Return the figures of these parts, or of all, as plain data; progress goes to stderr.

    Raises ConfigError for a part that is none of PARTS.
    """
    if unknown := sorted(set(parts) - set(PARTS)):
        raise ConfigError(f"there are no parts {', '.join(unknown)} to measure; there are {', '.join(PARTS)}")
    figures: dict[str, Any] = {}
    for name, part in PARTS.items():
        if not parts or name in parts:
            figures |= part(scale)
    return figures


def _measure_threads(scale: Scale) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return _measure_threads_in(Path(folder), scale)


def _measure_threads_in(folder: Path, scale: Scale) -> dict[str, Any]:
    _progress(f"{scale.turns} turns with memory")
    kept = run_thread(scale.turns, folder / "kept.sqlite", trim_history=False)
    _progress(f"{scale.turns} turns with memory, absorbed messages trimmed")
    trimmed = run_thread(scale.turns, folder / "trimmed.sqlite", trim_history=True)
    last = max(scale.compared) + 2
    _progress(f"{last} turns with memory and the prefix cache")
    warm = run_thread(last, folder / "warm.sqlite", trim_history=False, warm=True)
    _progress("the same turns with the full history")
    compared = compare_turns(kept, warm, scale.compared, repeats=scale.repeats)
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


def _measure_first_token(scale: Scale) -> dict[str, Any]:
    _progress(f"first token of turn {scale.first_token}")
    first = compare_first_tokens(scale.first_token)
    return {"first_token": asdict(first) | {"ratio": first.ratio}}


def _measure_overhead(scale: Scale) -> dict[str, Any]:
    """Measure prefill and decoding of the bundled backbone."""
    _progress("overhead of the memory")
    options = ("--tokens", str(scale.prefill_tokens), "--repeats", str(scale.repeats))
    return {"overhead": _run_backbone_bench("model", *options)}


def _measure_ratios(scale: Scale) -> dict[str, Any]:
    """Measure the fixed case bench-512."""
    _progress("bench-512, a few minutes")
    return {"ratios": _run_backbone_bench("cpu", *(["--quick"] if scale.quick_ratios else []))}


def _run_backbone_bench(*arguments: str) -> Any:
    """Run the backbone's own benchmark, in a process of its own."""
    command = [sys.executable, "-m", "backbone.bench", *arguments, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _measure_start(scale: Scale) -> dict[str, Any]:
    """Time `deltamem --help` against importing typer and langchain's messages, started in turns."""
    _progress("start of the command line")
    programs = {
        "help_seconds": [sys.executable, "-c", "from deltamem_agents.cli import main; main()", "--help"],
        "import_seconds": [sys.executable, "-c", "import langchain_core.messages, typer"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(scale.starts):
        for name, command in programs.items():
            begin = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {"start": medians | {"ratio": medians["help_seconds"] / medians["import_seconds"]}}


def _measure_redaction(scale: Scale) -> dict[str, Any]:
    _progress("redaction of secrets")
    return {"redaction": measure_redaction(scale.repeats)}


def _measure_archive(scale: Scale) -> dict[str, Any]:
    _progress("searches among many records, a few minutes")
    return {"archive": measure_archive(scale.archive, scale.questions)}


def _measure_recall(scale: Scale) -> dict[str, Any]:
    _progress("recall")
    rows = []
    for facts, distance in scale.recall:
        found = run_recall(RecallOptions(facts, distance, threads=scale.recall_threads))
        rows.append({"facts": facts, "distance": distance, **found})
    return {"recall": rows}


def _progress(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


PARTS: Final[Mapping[str, Callable[[Scale], dict[str, Any]]]] = {
    "turns": _measure_threads,
    "first-token": _measure_first_token,
    "overhead": _measure_overhead,
    "ratios": _measure_ratios,
    "start": _measure_start,
    "redaction": _measure_redaction,
    "archive": _measure_archive,
    "recall": _measure_recall,
}
"""What can be measured apart, in the order in which it is measured."""
