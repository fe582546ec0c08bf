"""Hold what the names of rules mean: how missing values are filled, and what is done about outliers."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import pandas as pd
from sklearn.ensemble import IsolationForest
from sklearn.impute import KNNImputer

from .table import TableError

__all__ = ["MISSING", "OUTLIERS", "named"]

Rule = TypeVar("Rule")


def _knn(frame: pd.DataFrame, column: str) -> pd.Series:
    """Fill gaps with the mean of the five rows that are most alike in the other columns of numbers."""
    numbers = frame.select_dtypes("number")
    filled = KNNImputer(keep_empty_features=True).fit_transform(numbers)
    return pd.Series(filled[:, list(numbers.columns).index(column)], index=frame.index, name=column)


MISSING: Mapping[str, Callable[[pd.DataFrame, str], pd.Series]] = {
    "drop": lambda frame, column: frame[column].dropna(),
    "ignore": lambda frame, column: frame[column].dropna(),
    "zero": lambda frame, column: frame[column].fillna(0),
    "mean": lambda frame, column: frame[column].fillna(frame[column].mean()),
    "median": lambda frame, column: frame[column].fillna(frame[column].median()),
    "mode": lambda frame, column: frame[column].fillna(frame[column].mode().iloc[0]),
    "minimum": lambda frame, column: frame[column].fillna(frame[column].min()),
    "maximum": lambda frame, column: frame[column].fillna(frame[column].max()),
    "ffill": lambda frame, column: frame[column].ffill(),
    "bfill": lambda frame, column: frame[column].bfill(),
    "interpolate": lambda frame, column: frame[column].interpolate(),
    "knn": _knn,
}
"""How gaps are filled; drop and ignore leave their rows out."""


def _between(values: pd.Series, low: float, high: float) -> pd.Series:
    return values[values.between(low, high)]


def _quantiles(values: pd.Series, low: float, high: float) -> tuple[float, float]:
    return float(values.quantile(low)), float(values.quantile(high))


def _iqr(values: pd.Series) -> pd.Series:
    first, third = _quantiles(values, 0.25, 0.75)
    reach = 1.5 * (third - first)
    return _between(values, first - reach, third + reach)


def _mad(values: pd.Series) -> pd.Series:
    middle = float(values.median())
    reach = 3 * 1.4826 * float((values - middle).abs().median())  # a standard deviation for normal values
    return _between(values, middle - reach, middle + reach)


def _zscore(values: pd.Series) -> pd.Series:
    mean, reach = float(values.mean()), 3 * float(values.std())
    return _between(values, mean - reach, mean + reach)


def _clip(values: pd.Series) -> pd.Series:
    return values.clip(*_quantiles(values, 0.05, 0.95))


def _trim(values: pd.Series) -> pd.Series:
    return _between(values, *_quantiles(values, 0.05, 0.95))


def _isolation(values: pd.Series) -> pd.Series:
    usual = IsolationForest(random_state=0).fit_predict(values.to_frame()) > 0
    return values[pd.Series(usual, index=values.index)]


OUTLIERS: Mapping[str, Callable[[pd.Series], pd.Series]] = {
    "iqr": _iqr,
    "tukey": _iqr,
    "zscore": _zscore,
    "mad": _mad,
    "hampel": _mad,
    "trim": _trim,
    "percentile": _trim,
    "clip": _clip,
    "cap": _clip,
    "winsorize": _clip,
    "isolation": _isolation,
}
"""What is done about outliers; clip, cap and winsorize move them to the 5th and 95th percentile, others drop them."""


def named(rules: Mapping[str, Rule], name: str, what: str) -> Rule:
    """Return the rule of that name; raises TableError that lists the names there are."""
    rule = rules.get(name.strip().lower())
    if rule is None:
        raise TableError(f"{name!r} is no {what} that is known here; there are {', '.join(rules)}")
    return rule
