"""Draw one column, and save the picture."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype

from .rules import named
from .table import TableError

__all__ = ["KINDS", "save_plot"]

_BINS = 8
_NUMBERS_ONLY = frozenset({"line", "scatter", "area", "step", "histogram", "box", "violin", "strip", "hexbin"})


def _counts(values: pd.Series) -> pd.Series:
    """Count equal words, or numbers in eight ranges."""
    if is_numeric_dtype(values):
        values = pd.cut(values, _BINS, precision=1).astype(str)
    return values.value_counts(sort=False)


def _bar(axes: Axes, values: pd.Series) -> None:
    counts = _counts(values)
    axes.barh(counts.index.astype(str), counts.to_numpy())


def _pie(axes: Axes, values: pd.Series, *, hole: float = 0.0) -> None:
    counts = _counts(values)
    axes.pie(counts.to_numpy(), labels=list(counts.index.astype(str)), wedgeprops={"width": 1 - hole})


def _strip(axes: Axes, values: pd.Series) -> None:
    axes.plot(values, np.random.default_rng(0).uniform(-1, 1, len(values)), ".")


KINDS: Mapping[str, Callable[[Axes, pd.Series], object]] = {
    "bar": _bar,
    "pie": _pie,
    "donut": lambda axes, values: _pie(axes, values, hole=0.6),
    "histogram": lambda axes, values: axes.hist(values, bins=20),
    "box": lambda axes, values: axes.boxplot(values),
    "violin": lambda axes, values: axes.violinplot(values),
    "strip": _strip,
    "step": lambda axes, values: axes.ecdf(values),
    "line": lambda axes, values: axes.plot(range(len(values)), values),
    "area": lambda axes, values: axes.fill_between(range(len(values)), values),
    "scatter": lambda axes, values: axes.scatter(range(len(values)), values, s=8),
    "hexbin": lambda axes, values: axes.hexbin(range(len(values)), values, gridsize=25),
}
"""Kinds of charts; step is the share of values below each, and line, area, scatter and hexbin go along the rows."""


def save_plot(values: pd.Series, kind: str, folder: Path, *, rows: str) -> Path:
    """Draw the values that are not missing, and return the PNG's path; rows says in the title which they are.

    Raises TableError for a kind that is not known, or that needs numbers where there are words.
    """
    draw = named(KINDS, kind, "kind of chart")
    kind = kind.strip().lower()
    values = values.dropna()
    if values.empty:
        raise TableError(f"{values.name} has no values to draw")
    if kind in _NUMBERS_ONLY and not is_numeric_dtype(values):
        raise TableError(f"a {kind} chart needs numbers; {values.name} has words, for which there are bar and pie")
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    draw(axes, values)
    axes.set_title(f"{values.name}, {len(values)} rows ({rows})")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{re.sub(r'[^A-Za-z0-9]+', '_', str(values.name))}_{kind}.png"
    figure.savefig(path, dpi=110)
    return path
