"""Turn text into the terms that full-text search compares: folded, without common words, stemmed."""

import re
import threading
import unicodedata
from collections.abc import Iterator

import Stemmer

__all__ = ["MAX_TERM_CHARACTERS", "terms_of"]

MAX_TERM_CHARACTERS = 64

_WORD = re.compile(r"\w+")
# Scripts that are written without spaces; their words are found by pairs of characters.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_COMMON_WORDS = """
a about am an and any are as at be been being but by can could d did do does doing for from had has have having he
her hers him his how i if in into is it its just ll m me my of on or our re s she should so t than that the their
them then there these they this those to too u us ve was we were what when where which who whom whose why will
with would you your yours
"""
_COMMON = frozenset(_COMMON_WORDS.split())
# A stemmer keeps a cache that two threads must not share.
_local = threading.local()


def terms_of(text: str) -> list[str]:
    """Return the terms of a text in their order, with repetitions.

    Words with underscores give their parts as well. Words that say nothing, such as "the", are left out.
    """
    words = [word for word in _words(text) if word not in _COMMON]
    stemmer = getattr(_local, "stemmer", None)
    if stemmer is None:
        stemmer = _local.stemmer = Stemmer.Stemmer("english")
    stems: list[str] = stemmer.stemWords(words)
    return stems


def _words(text: str) -> Iterator[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    for match in _WORD.finditer(folded):
        word = match.group()
        if _UNSPACED.search(word):
            yield from _pairs(word)
            continue
        yield word[:MAX_TERM_CHARACTERS]
        if "_" in word.strip("_"):
            yield from (part[:MAX_TERM_CHARACTERS] for part in word.split("_") if part)


def _pairs(word: str) -> Iterator[str]:
    for run in _UNSPACED.findall(word):
        yield from (run[i : i + 2] for i in range(max(1, len(run) - 1)))
    yield from (rest[:MAX_TERM_CHARACTERS] for rest in _UNSPACED.split(word) if rest)
