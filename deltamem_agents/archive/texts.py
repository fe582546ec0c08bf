"""Lay an item out as one text for policies to see, and put what they redact back where it stood."""

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from deltamem_agents.policy import RedactedSpan, Retain
from deltamem_agents.policy.decisions import outermost

__all__ = ["Piece", "lay_out", "with_redactions"]


class Piece(NamedTuple):
    """Hold a key or a value of an item, or what stands between two of them."""

    text: str
    own: bool = True


_Cells = list[tuple[int, str]]


def lay_out(key: str, value: Any) -> list[Piece]:
    """Return an item as lines: its key, then `name: value`, with a line for each element of a list."""
    return [Piece(key), Piece("\n", own=False), *_pieces(value)]


def with_redactions(key: str, value: dict[str, Any], laid_out: list[Piece], decision: Retain) -> dict[str, Any] | None:
    """Return an item's value with what was decided to be redacted.

    A number that is redacted becomes text. None: it cannot be done, since the item's key would change, two names in it
    would become one, or a policy has written a text of its own.
    """
    cells: _Cells = [(at, letter) for at, piece in enumerate(laid_out) for letter in piece.text]
    own = {at for at, piece in enumerate(laid_out) if piece.own}
    for part in decision.parts:
        if isinstance(part, Retain):
            # From the end, so that the places of earlier spans stay what they are.
            for span in reversed(outermost(part.redactions)):
                _replace(cells, span, own)
    if decision.text is not None and decision.text != "".join(letter for _, letter in cells):
        return None
    texts = {at: "".join(letter for _, letter in some) for at, some in groupby(cells, key=lambda cell: cell[0])}
    left = (texts.get(at, "") for at in sorted(own))
    if next(left) != key:
        return None
    try:
        changed: dict[str, Any] = _rebuilt(value, left)
    except ValueError:
        return None
    return changed


def _pieces(value: Any) -> Iterator[Piece]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield Piece(name)
            yield Piece(": ", own=False)
            yield from _pieces(one)
            yield Piece("\n", own=False)
    elif isinstance(value, list):
        for one in value:
            yield from _pieces(one)
            yield Piece("\n", own=False)
    else:
        yield Piece(_text(value))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _replace(cells: _Cells, span: RedactedSpan, own: set[int]) -> None:
    """Put a placeholder into the first piece that a span covers part of, and take the span out of all of them."""
    covered = [at for at, _ in cells[span.start : max(span.end, span.start + 1)] or cells[-1:]]
    owner = next((at for at in covered if at in own), covered[0])
    cells[span.start : span.end] = [(owner, letter) for letter in span.placeholder]


def _rebuilt(value: Any, left: Iterator[str]) -> Any:
    if isinstance(value, dict):
        made = {next(left): _rebuilt(one, left) for one in value.values()}
        if len(made) != len(value):
            raise ValueError("two names have become one")
        return made
    if isinstance(value, list):
        return [_rebuilt(one, left) for one in value]
    text = next(left)
    return value if text == _text(value) else text
