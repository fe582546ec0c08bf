"""Show the figures of `bench` as tables."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

__all__ = ["print_report"]

Figures = Mapping[str, Any]

_WARM = ("memory_warm_seconds", "full_warm_seconds")


def print_report(figures: Figures, console: Console) -> None:
    """Print one table for each part that was measured."""
    for name, table in _TABLES.items():
        if name in figures:
            console.print(table(figures[name]))


def _turns(turns: Any) -> Table:
    return _table(
        "seconds per turn",
        ("turn", "with memory", "full history", "full ÷ memory", "with memory, warm", "full history, warm"),
        ((t["turn"], t["memory_seconds"], t["full_seconds"], t["ratio"], *(t[name] for name in _WARM)) for t in turns),
    )


def _first_token(first: Any) -> Table:
    return _table(
        f"time to first token, turn {first['turn']} (mean of {first['turns']} turns around it)",
        ("prefix cache", "tokens computed", "seconds", "warm ÷ cold"),
        [
            ("warm", first["warm_tokens"], first["warm_seconds"], first["ratio"]),
            ("cold", first["cold_tokens"], first["cold_seconds"], ""),
        ],
    )


def _file_bytes(found: Any) -> Table:
    sizes = dict(found)
    return _table(f"SQLite file after {sizes.pop('turns')} turns", ("agent", "bytes"), sizes.items())


def _overhead(rows: Any) -> Table:
    return _table(
        "cost of the memory",
        ("what", "tokens", "frozen, s", "with memory, s", "ratio"),
        ((o["what"], o["tokens"], o["frozen_seconds"], o["memory_seconds"], o["ratio"]) for o in rows),
    )


def _ratios(ratios: Any) -> Table:
    return _table("bench-512", ("ratio to the frozen backbone", "value"), ratios.items())


def _start(start: Any) -> Table:
    return _table(
        "start",
        ("deltamem --help, s", "import of langchain_core.messages and typer, s", "ratio"),
        [(start["help_seconds"], start["import_seconds"], start["ratio"])],
    )


def _redaction(rows: Any) -> Table:
    return _table(
        "redaction of secrets",
        ("text", "ms per kB", "÷ code", "growth from 8 to 64 kB"),
        ((row["text"], row["ms_per_kb"], row["ratio"], row["growth"]) for row in rows),
    )


def _archive(rows: Any) -> Table:
    titles = ("figure", *(f"{row['records']:,} records" for row in rows))
    names = [name for name in rows[0] if name != "records"]
    return _table("archive, 95th percentiles", titles, ((name, *(row[name] for row in rows)) for name in names))


def _recall(rows: Any) -> Table:
    names = [name for name in rows[0] if name not in {"facts", "distance"}]
    titles = ("figure", *(f"{row['facts']} facts, {row['distance']:,} tokens" for row in rows))
    return _table("recall", titles, ((name, *(row[name] for row in rows)) for name in names))


_TABLES: Final[Mapping[str, Callable[[Any], Table]]] = {
    "turns": _turns,
    "first_token": _first_token,
    "file_bytes": _file_bytes,
    "overhead": _overhead,
    "ratios": _ratios,
    "start": _start,
    "redaction": _redaction,
    "archive": _archive,
    "recall": _recall,
}


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
