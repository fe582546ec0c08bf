"""Find in the archive what the user has stated about an assumption."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from deltamem_agents import HybridMemory
from deltamem_agents.archive import Record, RecordFilter
from deltamem_agents.policy import PolicyContext

from .plots import KINDS
from .rules import MISSING, OUTLIERS

__all__ = ["ASSUMED", "Assumed", "cited", "mentions", "newest_record", "newest_statement", "states", "value_in"]

_LOOKED_AT = 50
_CITATION_DIGITS = 8  # the end of a record's id, by which recalled blocks cite it


@dataclass(frozen=True)
class Assumed:
    """Name what an argument assumes.

    cues: a sentence that states it has one of these beside the value. values: a regular expression of the values that
    can be stated; "" where the table has them.
    """

    name: str
    cues: tuple[str, ...]
    values: str


ASSUMED: Mapping[str, Assumed] = {
    "missing": Assumed("missing value rule", ("missing", "gaps"), "|".join(MISSING)),
    "kind": Assumed("chart type", ("chart", "plot", "figure"), "|".join(KINDS)),
    "level": Assumed("significance level", ("level", "significan", "hypothes", "p is", "alpha"), r"0?\.\d+"),
    "outliers": Assumed("outlier rule", ("outlier", "extreme"), "|".join(OUTLIERS)),
    "group": Assumed("subgroup", ("group", "only", "analysis", "care about"), ""),
}
"""The arguments that a person states once, by their names in the tools."""


def states(text: str, value: str, assumed: Assumed) -> bool:
    """Tell whether a text states the value: it names it beside a cue, and is no question."""
    return mentions(text, value) and _is_about(text, assumed)


def mentions(text: str, value: str) -> bool:
    """Tell whether a text names a value, as a word of its own."""
    return value_in(text, re.escape(value)) is not None


def value_in(text: str, values: str) -> str | None:
    """Return the first of some values, a regular expression, that a text names as a word of its own."""
    found = re.search(rf"(?<![\w.])(?:{values})(?![\w]|\.\d)", text, re.IGNORECASE)
    return found and found[0]


def newest_statement(assumed: Assumed, values: str, memory: HybridMemory) -> tuple[str, Record] | None:
    """Return the value that the user has stated last, and the record of it; values: a regular expression."""

    def fits(text: str) -> bool:
        return value_in(text, values) is not None and _is_about(text, assumed)

    words = re.sub(r"[\W\d]+", " ", values)
    record = newest_record(" ".join([assumed.name, *assumed.cues, words]), memory, fits) if values else None
    return None if record is None else (str(value_in(record.text, values)), record)


def newest_record(query: str, memory: HybridMemory, fits: Callable[[str], bool]) -> Record | None:
    """Return the newest of the user's records that suit a query, fit, and may be shown."""
    hits = memory.store.recall(memory.namespace, query, where=RecordFilter(source="user"), limit=_LOOKED_AT)
    context = PolicyContext(memory.namespace)
    fitting: Iterable[Record] = (
        hit.record
        for hit in hits
        if fits(hit.record.text) and memory.policy.present(hit.record, context).action in {"show", "mask"}
    )
    return max(fitting, key=lambda record: record.created, default=None)


def cited(record: Record) -> tuple[str, str]:
    """Return citation and date of a record."""
    return record.id[-_CITATION_DIGITS:], f"{record.created:%Y-%m-%d}"


def _is_about(text: str, assumed: Assumed) -> bool:
    return any(cue in text.lower() for cue in assumed.cues) and not text.rstrip().endswith("?")
