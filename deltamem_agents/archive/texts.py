"""Lay an item out as one text for policies to see, and put what they redact back where it stood."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from deltamem_agents.policy import RedactedSpan, Retain
from deltamem_agents.policy.decisions import outermost
from deltamem_agents.policy.secret_values import is_telling

__all__ = ["Piece", "lay_out", "with_redactions"]


class Piece(NamedTuple):
    """Hold a key or a value of an item, or what stands between two of them."""

    text: str
    own: bool = True


_Cells = list[tuple[int, str]]


def lay_out(key: str, value: Any) -> list[Piece]:
    """Return an item as lines: its key, then `name: value`, with such a line for each element of a list.

    A value that stands alone in an object is also put behind the name that the object is under.
    """
    return [Piece(key), Piece("\n", own=False), *_pieces(value, key)]


def with_redactions(key: str, value: dict[str, Any], laid_out: list[Piece], decision: Retain) -> dict[str, Any] | None:
    """Return an item's value with what was decided to be redacted.

    A number that is redacted becomes text. None: it cannot be done, since the item's key would change, two names in it
    would become one, or a policy has written a text of its own.
    """
    cells: _Cells = [(at, letter) for at, piece in enumerate(laid_out) for letter in piece.text]
    own = {at for at, piece in enumerate(laid_out) if piece.own}
    for part in decision.parts:
        if isinstance(part, Retain):
            cells = _replaced(cells, outermost(part.redactions), own)
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


def _pieces(value: Any, inside: str) -> Iterator[Piece]:
    """Lay a value out behind its name.

    inside: the name it stands under, repeated for a list's elements and for a lone value whose own name tells nothing.
    """
    if isinstance(value, dict):
        for name, one in value.items():
            yield Piece(name)
            yield Piece(": ", own=False)
            if len(value) == 1 and not isinstance(one, dict | list) and not is_telling(name):
                yield Piece(f"{inside}: ", own=False)
            yield from _pieces(one, name)
            yield Piece("\n", own=False)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            if number and not isinstance(one, dict | list):
                yield Piece(f"{inside}: ", own=False)
            yield from _pieces(one, inside)
            yield Piece("\n", own=False)
    else:
        yield Piece(_text(value))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _replaced(cells: _Cells, spans: Sequence[RedactedSpan], own: set[int]) -> _Cells:
    """Put each placeholder into the first piece that its span covers part of, and take the span out of all of them.

    spans: in order, none inside another.
    """
    left, at = _Cells(), 0
    for span in spans:
        covered = [piece for piece, _ in cells[span.start : max(span.end, span.start + 1)] or cells[-1:]]
        owner = next((piece for piece in covered if piece in own), covered[0] if covered else min(own))
        left += [*cells[at : span.start], *((owner, letter) for letter in span.placeholder)]
        at = span.end
    return left + cells[at:]


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
