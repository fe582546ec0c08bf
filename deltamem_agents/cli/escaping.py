"""Escape what a terminal would obey in texts that files, people and models wrote."""

import unicodedata

__all__ = ["printable"]

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, marks without a shape, half characters, separators
_PLAIN = frozenset("\n\t\u200c\u200d")  # the last two join letters and emoji


def printable(text: str) -> str:
    """Return a text with its control characters escaped, so that it can neither move a terminal's cursor nor reorder.

    Line feeds and tabs stay as they are.
    """
    return "".join(
        one.encode("unicode_escape").decode() if one not in _PLAIN and unicodedata.category(one) in _UNSEEN else one
        for one in text
    )
