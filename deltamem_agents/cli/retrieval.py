"""Print how well the archive finds what answers a question."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deltamem_agents.cli.progress import progress
from deltamem_agents.evaluation.retrieval import METRICS, run_retrieval

__all__ = ["print_retrieval"]


def print_retrieval(*, dataset: Path, embeddings: str | None, as_json: bool) -> None:
    """Measure retrieval on a data set and print the figures to stdout.

    Raises:
        ConfigError: the file is not LoCoMo, or there are no embeddings.
    """
    with progress("conversations") as report:
        figures = run_retrieval(dataset, embeddings, report)
    if as_json:
        print(json.dumps(figures))
        return
    table = Table("questions", "search", "n", *METRICS, title=f"{dataset.name}: turns that answer a question")
    for category, rows in {"all": figures["rows"], **figures["categories"]}.items():
        for name, row in rows.items():
            table.add_row(category, name, str(row["n"]), *(f"{row[metric]:.3f}" for metric in METRICS))
    Console().print(table)
