"""Bound a JSON schema, so that a model that only ever picks the longest way out still comes to an end.

Every bound narrows the schema: what fits the bounded one fits the given one. Bounds that the schema sets itself stay.
"""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["bound_arguments", "bound_schema"]

_STRING = 200  # characters
_NUMBER = 10**15  # magnitude; what a double still holds exactly
_STEP = 1e-6  # of numbers that are not integers, which bounds their digits; finer for a narrow range
_ITEMS = 8  # of arrays and free-form objects
_KEY = r"^[^\x00-\x1f\x7f\x22\x5c]{1,40}$"  # of free-form objects

_SCALARS: list[dict[str, Any]] = [
    {"type": "string", "maxLength": _STRING},
    {"type": "number", "minimum": -_NUMBER, "maximum": _NUMBER, "multipleOf": _STEP},
    {"type": "boolean"},
    {"type": "null"},
]
_FREE_OBJECT = {
    "type": "object",
    "patternProperties": {_KEY: {"anyOf": _SCALARS}},
    "additionalProperties": False,
    "maxProperties": _ITEMS,
}
_ANYTHING = {"anyOf": [*_SCALARS, {"type": "array", "items": {"anyOf": _SCALARS}, "maxItems": _ITEMS}, _FREE_OBJECT]}

_SCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_SCHEMA_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")
_REFERRING = ("$ref", "anyOf", "oneOf", "allOf", "not")  # what these lead to says its type itself
_TYPED = {
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "array": ("items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems"),
    "object": (
        "properties", "patternProperties", "additionalProperties", "propertyNames", "required", "minProperties",
        "maxProperties",
    ),
}  # fmt: skip


def bound_arguments(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the bounded schema of a tool's arguments: always an object, and without parameters an empty one."""
    bounded: dict[str, Any] = bound_schema({"type": "object", "properties": {}, **(parameters or {})})
    return bounded


def bound_schema(schema: Any, *, close: bool = True) -> Any:
    """Return a JSON schema (a dict or a bool) with bounds on strings, numbers, arrays and objects at every level.

    An object that lists its properties has no others, unless the schema allows them or `close` is False.
    """
    if not isinstance(schema, Mapping):
        return _ANYTHING if schema is True else schema
    result = dict(schema)
    for key in _SCHEMA_MAPS:
        if key in result:
            result[key] = {name: bound_schema(part) for name, part in result[key].items()}
    for key in _SCHEMA_LISTS:
        if key in result:
            # Each part lists only some of the properties: of those of an allOf, or of those that stand beside it.
            together = key != "prefixItems" and ("properties" in result or (key == "allOf" and len(result[key]) > 1))
            result[key] = [bound_schema(part, close=close and not together) for part in result[key]]
    if "enum" in result or "const" in result:
        return result
    types = _types(result)
    if not types and not any(key in result for key in _REFERRING):
        return {**result, **_ANYTHING}
    if types:
        result["type"] = types[0] if len(types) == 1 else list(types)
    _bound_by_type(result, types, close)
    return result


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the types that a schema names or else, which narrows it, those that its keywords are about."""
    named = schema.get("type")
    if named is not None:
        return (named,) if isinstance(named, str) else tuple(named)
    if any(key in schema for key in _REFERRING):
        # A part may be of another type than a keyword beside it, but not than the properties or items.
        return ("object",) if "properties" in schema else ("array",) if "items" in schema else ()
    return tuple(name for name, keywords in _TYPED.items() if any(key in schema for key in keywords))


def _bound_by_type(result: dict[str, Any], types: tuple[str, ...], close: bool) -> None:
    if "string" in types:
        result.setdefault("maxLength", max(_STRING, result.get("minLength", 0)))
    if "integer" in types or "number" in types:
        _bound_number(result, whole="number" not in types)
    if "array" in types:
        result["items"] = bound_schema(result.get("items", True))
        result.setdefault("maxItems", max(_ITEMS, result.get("minItems", 0)))
    if "object" in types and close:
        _bound_object(result)


def _bound_number(result: dict[str, Any], *, whole: bool) -> None:
    low = result.get("minimum", result.get("exclusiveMinimum"))
    high = result.get("maximum", result.get("exclusiveMaximum"))
    if low is None:
        low = result["minimum"] = min(-_NUMBER, (high or 0) - _NUMBER)
    if high is None:
        high = result["maximum"] = max(_NUMBER, low + _NUMBER)
    if not whole and high > low:
        result.setdefault("multipleOf", min(_STEP, 10.0 ** (math.floor(math.log10(high - low)) - 3)))


def _bound_object(result: dict[str, Any]) -> None:
    free = result.get("additionalProperties", "properties" not in result and "patternProperties" not in result)
    result["additionalProperties"] = False
    if free is not False:
        result["patternProperties"] = {**result.get("patternProperties", {}), _KEY: bound_schema(free)}
        least = max(result.get("minProperties", 0), len(result.get("required", ())), len(result.get("properties", {})))
        result.setdefault("maxProperties", max(_ITEMS, least))
