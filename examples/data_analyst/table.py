"""Load a table, and find the rows of a group in it."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from langchain_core.tools import ToolException
from pandas.api.types import infer_dtype, is_bool_dtype, is_numeric_dtype
from sklearn.datasets import load_diabetes

__all__ = ["EVERYONE", "Table", "TableError", "csv_table", "diabetes_table"]

_MAX_LEVELS = 10
_SEPARATORS = ",;\t|"
_AGES: dict[str, Callable[[pd.Series], pd.Series]] = {
    "adults": lambda age: age >= 18,
    "seniors": lambda age: age >= 65,
    "teenagers": lambda age: age.between(13, 19),
}
_SYNONYMS = {"women": ("women", "woman", "female", "f"), "men": ("men", "man", "male", "m")}
EVERYONE = frozenset({"all", "everyone"})
"""What takes a filter off."""


class TableError(ToolException):
    """Say why something cannot be computed; the text goes to the model."""


@dataclass(frozen=True)
class Table:
    """Hold a table. grouping: the column whose values are the groups that are compared, if there is one."""

    name: str
    frame: pd.DataFrame
    grouping: str | None

    def column(self, name: str) -> str:
        """Return the name of a column as the table writes it; raises TableError if there is none."""
        for column in self.frame.columns:
            if column.lower() == name.strip().lower():
                return str(column)
        raise TableError(f"there is no column {name!r}; there are {', '.join(self.frame.columns)}")

    def numbers(self, name: str) -> str:
        """Return the name of a column that holds numbers; raises TableError for another."""
        column = self.column(name)
        if not is_numeric_dtype(self.frame[column]):
            raise TableError(f"the column {column!r} holds no numbers")
        return column

    def only(self, group: str | None) -> "Table":
        """Return the table with the rows of one group; with None, "all" or "everyone" as it is.

        adults, seniors and teenagers go by a column `age`; any other group is a value of a column of words, where
        women and men are also found as female and male. Raises TableError for a group that is in neither.
        """
        if group is None or group.strip().lower() in EVERYONE:
            return self
        rows = self._rows(group.strip().lower())
        if not rows.any():
            raise TableError(f"no row of the table belongs to {group!r}")
        return Table(self.name, self.frame[rows], self.grouping)

    def groups(self) -> list[str]:
        """Return the names of groups that `only` knows, of columns with at most ten different words."""
        columns = (self.frame[name] for name in self.frame.columns if not is_numeric_dtype(self.frame[name]))
        words = [
            str(word).lower()
            for values in columns
            if values.nunique() <= _MAX_LEVELS
            for word in values.dropna().unique()
        ]
        others = [group for group, names in _SYNONYMS.items() if not set(names).isdisjoint(words)]
        return list(dict.fromkeys([*([] if self._age() is None else _AGES), *others, *words]))

    def _age(self) -> pd.Series | None:
        names = (name for name in self.frame.columns if name.lower() == "age" and is_numeric_dtype(self.frame[name]))
        return next((self.frame[name] for name in names), None)

    def _rows(self, group: str) -> pd.Series:
        age = self._age()
        if group in _AGES and age is not None:
            return _AGES[group](age)
        names = _SYNONYMS.get(group, (group, group.removesuffix("s")))
        for column in self.frame.columns:
            if not is_numeric_dtype(self.frame[column]):
                rows = self.frame[column].astype(str).str.lower().isin(names)
                if rows.any():
                    return rows
        known = ", ".join(self.groups()) or "no groups: it has neither ages nor a column of at most ten words"
        raise TableError(f"the table cannot tell who {group!r} are; it knows {known}")


def diabetes_table() -> Table:
    """Return the table that scikit-learn ships: 442 patients, ten measurements, and how their disease went on.

    It has no gaps. Its sexes are coded 1 and 2, and nobody documented which is which.
    """
    frame = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progression"})
    return Table("diabetes", frame.astype({"age": int, "sex": int}), "sex")


def csv_table(path: Path) -> Table:
    """Read a CSV file with a header; raises TableError if it is none.

    Its separator is the one of , ; tab and | that the header has most of. Names of columns are made unique, truths
    become 1 and 0, and infinite numbers gaps. Groups are compared by the first column of words that has 2 to 10
    different values.
    """
    try:
        frame = _read(path)
    except (OSError, ValueError) as error:
        raise TableError(f"{path} is not a CSV file that can be read: {error}") from error
    if frame.empty:
        raise TableError(f"{path} has no rows")
    frame.columns = pd.Index(_unique(str(column).strip() for column in frame.columns))
    frame = frame.apply(_truths_as_numbers).replace([math.inf, -math.inf], math.nan)
    words = [column for column in frame.columns if not is_numeric_dtype(frame[column])]
    grouping = next((column for column in words if 2 <= frame[column].nunique() <= _MAX_LEVELS), None)
    return Table(path.stem, frame, grouping)


def _read(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline()
    separator = max(_SEPARATORS, key=header.count)
    # Where commas do not separate, they may stand in numbers.
    decimals = (".",) if separator == "," else (".", ",")
    frames = [pd.read_csv(path, sep=separator, decimal=decimal) for decimal in decimals]
    return max(frames, key=lambda frame: sum(map(is_numeric_dtype, frame.dtypes)))


def _unique(names: Iterable[str]) -> list[str]:
    """Tell names apart that differ by case at most, and name the nameless."""
    known: dict[str, str] = {}
    for at, name in enumerate(names, 1):
        candidate, copy = name or f"column {at}", 1
        while candidate.lower() in known:
            copy += 1
            candidate = f"{name} {copy}"
        known[candidate.lower()] = candidate
    return list(known.values())


def _truths_as_numbers(values: pd.Series) -> pd.Series:
    if is_bool_dtype(values):
        return values.astype(int)
    return values.astype(float) if infer_dtype(values, skipna=True) == "boolean" else values
