"""Compute what the tools answer: short texts, so that a small window holds them."""

from pandas.api.types import is_numeric_dtype
from scipy.stats import f_oneway

from .rules import MISSING, OUTLIERS, named
from .table import Table, TableError

__all__ = ["average", "comparison", "overview", "summary"]

_MAX_COLUMNS = 30


def overview(table: Table) -> str:
    """Return the number of rows, and for each column its gaps and its mean or its number of different values."""
    lines = [f"{table.name}: {len(table.frame)} rows", "column | missing | mean or values"]
    for name, values in list(table.frame.items())[:_MAX_COLUMNS]:
        said = f"{values.mean():.4g}" if is_numeric_dtype(values) else f"{values.nunique()} values"
        lines.append(f"{name} | {values.isna().sum()} | {said}")
    more = len(table.frame.columns) - _MAX_COLUMNS
    return "\n".join(lines + [f"{more} more columns"] * (more > 0))


def summary(table: Table, column: str, missing: str) -> str:
    """Return mean, median, spread and range of a column, after its gaps were treated as the rule `missing` says."""
    rule = named(MISSING, missing, "rule for missing values")
    name = table.numbers(column)
    gaps = int(table.frame[name].isna().sum())
    if gaps == len(table.frame):
        raise TableError(f"{name} has no values in these rows")
    values = rule(table.frame, name)
    return (
        f"mean {values.mean():.4g}\nmedian {values.median():.4g}\nsd {values.std():.4g}\n"
        f"from {values.min():.4g} to {values.max():.4g}\n{len(values)} rows, missing {gaps} ({missing})"
    )


def average(table: Table, column: str, outliers: str) -> str:
    """Return the mean of a column, after its outliers were treated as the rule `outliers` says."""
    rule = named(OUTLIERS, outliers, "rule for outliers")
    name = table.numbers(column)
    values = table.frame[name].dropna()
    if values.empty:
        raise TableError(f"{name} has no values in these rows")
    kept = rule(values)
    left_out = len(values) - len(kept)
    moved = int((kept != values.loc[kept.index]).sum())
    told = f"{left_out} left out" if left_out or not moved else f"{moved} moved"
    return f"mean {kept.mean():.4g} over {len(kept)} rows ({outliers}: {told})"


def comparison(table: Table, column: str, level: str) -> str:
    """Test whether the groups of the table differ in the mean of a column; level is a probability, as text.

    Welch's test, which does not take the groups' variances for equal; rows with a gap are left out.
    """
    alpha = _probability(level)
    name = table.numbers(column)
    if table.grouping is None:
        raise TableError("the table has no column of 2 to 10 groups to compare")
    rows = table.frame[[name, table.grouping]].dropna()
    samples = {group: values for group, values in rows.groupby(table.grouping)[name] if len(values) > 1}
    if len(samples) < 2:
        raise TableError(f"these rows have fewer than two groups of {table.grouping} with values of {name}")
    if any(values.nunique() == 1 for values in samples.values()):
        raise TableError(f"{name} does not vary within each of the groups of {table.grouping}")
    p = float(f_oneway(*samples.values(), equal_var=False).pvalue)
    means = ", ".join(f"{group!s} {values.mean():.4g}" for group, values in samples.items())
    verdict = "the groups differ" if p < alpha else "no difference"
    return f"p = {p:.3g}\n{verdict} at {alpha:g}\n{table.grouping}: {means}"


def _probability(text: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = 0.0
    if not 0 < alpha < 1:
        raise TableError(f"a significance level lies between 0 and 1, such as 0.05; got {text!r}")
    return alpha
