"""Match the values of a LangGraph store against filters, in Python: a filter never becomes SQL."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

from deltamem_agents.archive.errors import RecordInvalidError

__all__ = ["matches"]

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def matches(value: Mapping[str, Any], chosen: Mapping[str, Any] | None) -> bool:
    """Say whether a value passes a filter: each key equals its value, or passes its operators.

    Operators are $eq, $ne, $gt, $gte, $lt and $lte; the last four compare as numbers, and what is no number passes
    none of them. Raises RecordInvalidError for another operator.
    """
    return all(_passes(value.get(key), wanted) for key, wanted in (chosen or {}).items())


def _passes(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if any(str(key).startswith("$") for key in wanted):
            return all(_compare(found, str(name), operand) for name, operand in wanted.items())
        return isinstance(found, Mapping) and all(_passes(found.get(key), part) for key, part in wanted.items())
    if isinstance(wanted, list | tuple):
        same = isinstance(found, list | tuple) and len(found) == len(wanted)
        return same and all(_passes(part, expected) for part, expected in zip(found, wanted, strict=True))
    return bool(found == wanted)


def _compare(found: Any, name: str, operand: Any) -> bool:
    if name in {"$eq", "$ne"}:
        return bool(found == operand) == (name == "$eq")
    if name not in _COMPARISONS:
        raise RecordInvalidError(f"a filter's operators are $eq, $ne, $gt, $gte, $lt and $lte; got {name!r}")
    try:
        return _COMPARISONS[name](float(found), float(operand))
    except (TypeError, ValueError):
        return False
