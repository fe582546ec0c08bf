"""Print the recall measurement as a table or as JSON."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from deltamem_agents.cli.progress import quiet_loading
from deltamem_agents.evaluation.recall import RecallOptions, run_recall

__all__ = ["print_recall"]

_MEANING = {
    "exact_match": "answered exactly, the fact being in the working memory only",
    "zeroed": "the same questions with the memory set to zero",
    "shuffled": "the same questions with another thread's memory",
    "full_context": "the same questions with the whole history in the prompt",
    "never_told": "answered that it does not know what was never said",
    "chance": "guessing among the values of the attribute",
    "n": "questions asked",
    "archive_only": "with the archive's passages and the memory set to zero",
    "hybrid": "with the working memory and the archive's passages",
    "hybrid_never_told": "answered that it does not know, with both",
    "prompt_contains_fact": "prompts that held the fact as text (must be 0)",
}


def print_recall(
    *,
    facts: int,
    distance: int,
    updates: bool,
    mode: Literal["tsw", "ssw", "msw"],
    threads: int,
    seed: int,
    archive: bool,
    as_json: bool,
) -> None:
    """Measure recall with these options and print the figures to stdout.

    Raises:
        ConfigError: the options ask for more facts than there are attributes.
    """
    options = RecallOptions(
        facts=facts, distance=distance, updates=updates, mode=mode, threads=threads, seed=seed, archive=archive
    )
    quiet_loading()
    figures = run_recall(options)
    if as_json:
        print(json.dumps(figures))
        return
    title = f"{facts} facts behind {distance} tokens, mode {mode}{', with updates' if updates else ''}, seed {seed}"
    Console().print(_table(title, figures))


def _table(title: str, figures: Mapping[str, Any]) -> Table:
    table = Table(title=title)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("what it is")
    for name, value in figures.items():
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        table.add_row(name, shown, _MEANING.get(name, ""))
    return table
