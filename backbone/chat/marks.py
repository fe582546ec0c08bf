"""Find where each message lies in the text that a chat template renders.

Nearly every chat template prints its messages in a loop. A mark is put at the head of the body of each loop of the
template's source; a rendering of that source then tells where every message begins, and without the marks it must equal
the plain one.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, islice
from typing import NamedTuple

import jinja2

__all__ = ["MARK_KEY", "Marked", "add_marks", "choose_starts", "free_characters", "remove_marks"]

MARK_KEY = "deltamem_mark"

# Characters that Unicode leaves to private use, on the basic plane and on plane 15.
_PRIVATE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE))


Characters = tuple[str, str, str]


class Marked(NamedTuple):
    """Hold a rendering without its marks, and for each loop the (message, position) pairs in printed order."""

    text: str
    loops: dict[int, list[tuple[int, int]]]


def free_characters(text: str) -> Characters:
    """Return three private-use characters that the text does not hold, so that nobody can forge a mark."""
    used = set(text)
    opening, middle, closing = islice((chr(n) for n in chain(*_PRIVATE) if chr(n) not in used), 3)
    return opening, middle, closing


@functools.lru_cache(maxsize=16)
def add_marks(source: str, characters: Characters) -> str:
    """Return the template's source with a mark at the head of each loop over single names.

    A mark is the first character, the loop's number, the second character, in a loop over messages the message's
    number, and the third character. Raises jinja2.TemplateSyntaxError if the source is not a template.
    """
    opening, middle, closing = characters
    # As transformers renders chat templates: these two settings decide which whitespace belongs to a block's end.
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # noqa: S701 (only the lexer is used)
    parts: list[str] = []
    names: list[str] = []  # the names of the block being read; empty outside blocks
    loops = 0
    for _, kind, value in environment.lex(source):
        parts.append(value)
        if kind == "block_begin":
            names = []
        elif kind in ("name", "operator"):
            names.append(value)
        elif kind == "block_end" and names[:1] == ["for"] and names[2:3] == ["in"]:
            parts.append(f"{opening}{loops}{middle}{{{{ {names[1]}.{MARK_KEY} }}}}{closing}")
            if value.endswith("\n"):
                # The next line must still count as the beginning of a line, or lstrip_blocks would not apply to it.
                parts.append("{% if true %}{% endif %}\n")
            loops += 1
    return "".join(parts)


def remove_marks(rendered: str, characters: Characters) -> Marked:
    """Take the marks out of a rendering, noting where the messages' marks were."""
    pieces: list[str] = []
    loops: dict[int, list[tuple[int, int]]] = defaultdict(list)
    length = end = 0
    opening, middle, closing = characters
    for mark in re.finditer(f"{opening}(\\d+){middle}(\\d*){closing}", rendered):
        pieces.append(rendered[end : mark.start()])
        length += len(pieces[-1])
        end = mark.end()
        if mark[2]:
            loops[int(mark[1])].append((int(mark[2]), length))
    pieces.append(rendered[end:])
    return Marked("".join(pieces), dict(loops))


def choose_starts(loops: dict[int, list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Return the (message, position) pairs of the loop that prints the messages, or nothing if there is no such loop.

    That loop visits messages in order, each once; of several (templates also loop to look something up, printing
    nothing) it is the one that tells most messages apart.
    """
    best: list[tuple[int, int]] = []
    for pairs in loops.values():
        numbers = [number for number, _ in pairs]
        if numbers == list(range(numbers[0], numbers[0] + len(numbers))) and _spread(pairs) >= _spread(best):
            best = pairs
    return best


def _spread(pairs: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return len({position for _, position in pairs}), len(pairs)
