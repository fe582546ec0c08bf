"""Show the figures of `bench` as tables."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["print_report"]

Figures = Mapping[str, Any]


def print_report(figures: Figures, console: Console) -> None:
    """Print one table for each part of the measurement."""
    console.print(
        _table(
            "seconds per turn",
            ("turn", "with memory", "full history", "full ÷ memory"),
            ((t["turn"], t["memory_seconds"], t["full_seconds"], t["ratio"]) for t in figures["turns"]),
        )
    )
    first = figures["first_token"]
    console.print(
        _table(
            f"time to first token, turn {first['turn']} (mean of {first['turns']} turns around it)",
            ("prefix cache", "tokens computed", "seconds", "warm ÷ cold"),
            [
                ("warm", first["warm_tokens"], first["warm_seconds"], first["ratio"]),
                ("cold", first["cold_tokens"], first["cold_seconds"], ""),
            ],
        )
    )
    sizes = dict(figures["file_bytes"])
    title = f"SQLite file after {sizes.pop('turns')} turns"
    console.print(_table(title, ("agent", "bytes"), sizes.items()))
    console.print(
        _table(
            "cost of the memory",
            ("what", "tokens", "frozen, s", "with memory, s", "ratio"),
            (
                (o["what"], o["tokens"], o["frozen_seconds"], o["memory_seconds"], o["ratio"])
                for o in figures["overhead"]
            ),
        )
    )
    start = figures["start"]
    columns = ("deltamem --help, s", "import of langchain_core.messages and typer, s", "ratio")
    console.print(_table("start", columns, [(start["help_seconds"], start["import_seconds"], start["ratio"])]))
    redaction = ((row["text"], row["ms_per_kb"], row["ratio"], row["growth"]) for row in figures["redaction"])
    titles: tuple[str, ...] = ("text", "ms per kB", "÷ code", "growth from 8 to 64 kB")
    console.print(_table("redaction of secrets", titles, redaction))
    recall = figures["recall"]
    names = [name for name in recall[0] if name not in {"facts", "distance"}]
    titles = ("figure", *(f"{row['facts']} facts, {row['distance']:,} tokens" for row in recall))
    console.print(_table("recall", titles, ((name, *(row[name] for row in recall)) for name in names)))


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
