"""Number the sentences of a prompt, for adapters that write once a sentence."""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["sentence_numbers", "sentence_starts"]

# After a mark that ends something, perhaps in quotes or brackets, if white space follows; and before a blank line.
# White space begins the next sentence, as it begins the next token.
_BOUNDARY = re.compile(r"""(?<=[.!?;:])(?=["')\]”’]*\s)|(?<!\n)(?=\n\n)""")


def sentence_starts(text: str) -> list[int]:
    """Return where each sentence of a text begins; white space alone is not a sentence. Empty text has none.

    Sentences end where those of the published δ-mem code do.
    """
    starts = [0] if text.strip() else []
    for boundary in (match.start() for match in _BOUNDARY.finditer(text)):
        if starts and text[starts[-1] : boundary].strip() and text[boundary:].strip():
            starts.append(boundary)
    return starts


def sentence_numbers(
    messages: Sequence[Mapping[str, Any]], boundaries: Sequence[int], contents: Sequence[int], ends: Sequence[int]
) -> tuple[int, ...]:
    """Return each token's sentence, counted over the whole prompt; -1 for tokens of the template.

    Places in the rendered prompt: boundaries, where each message begins, and the last one ends; contents, where each
    message's content begins, -1 if it is not printed as it is; ends, where each token ends. A message without printed
    content, or that calls tools, is one sentence as a whole.
    """
    edges: list[int] = [0]
    labels: list[int] = [-1]
    count = 0
    for number, (message, content) in enumerate(zip(messages, contents, strict=True)):
        text = "" if content < 0 or message.get("tool_calls") else message["content"]
        starts = [content + start for start in sentence_starts(text)]
        stop = content + len(text)
        if not starts:
            starts, stop = [boundaries[number]], boundaries[number + 1]
        edges += [*starts, stop]
        labels += [*range(count, count + len(starts)), -1]
        count += len(starts)
    # A token that reaches over an edge belongs to the sentence it ends in.
    return tuple(labels[bisect_left(edges, end) - 1] for end in ends)
