"""Show the figures of `bench` as tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["print_report"]

Figures = Mapping[str, Any]


def print_report(figures: Figures, console: Console) -> None:
    """Print one table for each part of the measurement."""
    for table in (*_turn_tables(figures), *_cost_tables(figures), _recall_table(figures["recall"])):
        console.print(table)


def _turn_tables(figures: Figures) -> Iterator[Table]:
    yield _table(
        "seconds per turn",
        ("turn", "with memory", "full history", "full ÷ memory"),
        ((t["turn"], t["memory_seconds"], t["full_seconds"], t["ratio"]) for t in figures["turns"]),
    )
    first = figures["first_token"]
    yield _table(
        f"time to first token, turn {first['turn']} (mean of {first['turns']} turns around it)",
        ("prefix cache", "tokens computed", "seconds", "warm ÷ cold"),
        [
            ("warm", first["warm_tokens"], first["warm_seconds"], first["ratio"]),
            ("cold", first["cold_tokens"], first["cold_seconds"], ""),
        ],
    )
    sizes = dict(figures["file_bytes"])
    yield _table(f"SQLite file after {sizes.pop('turns')} turns", ("agent", "bytes"), sizes.items())


def _cost_tables(figures: Figures) -> Iterator[Table]:
    yield _table(
        "cost of the memory",
        ("what", "tokens", "frozen, s", "with memory, s", "ratio"),
        ((o["what"], o["tokens"], o["frozen_seconds"], o["memory_seconds"], o["ratio"]) for o in figures["overhead"]),
    )
    yield _table("bench-512", ("ratio to the frozen backbone", "value"), figures["ratios"].items())
    start = figures["start"]
    yield _table(
        "start",
        ("deltamem --help, s", "import of langchain_core.messages and typer, s", "ratio"),
        [(start["help_seconds"], start["import_seconds"], start["ratio"])],
    )
    yield _table(
        "redaction of secrets",
        ("text", "ms per kB", "÷ code", "growth from 8 to 64 kB"),
        ((row["text"], row["ms_per_kb"], row["ratio"], row["growth"]) for row in figures["redaction"]),
    )


def _recall_table(recall: Sequence[Mapping[str, Any]]) -> Table:
    names = [name for name in recall[0] if name not in {"facts", "distance"}]
    titles = ("figure", *(f"{row['facts']} facts, {row['distance']:,} tokens" for row in recall))
    return _table("recall", titles, ((name, *(row[name] for row in recall)) for name in names))


def _table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(_shown(value) for value in row))
    return table


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
