"""Turn episodes into padded token batches."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from backbone.tiny.episodes import Episode, Query, Turn
from backbone.tiny.tokenizer import encode_turns, system_text

__all__ = ["Batch", "Row", "add_turns", "collate", "cut_row", "extend_row", "flat_row", "system_row", "turns_of"]

POSITIONS = 4096
SENTENCE_ENDS = (".", ";", "<|im_end|>")
NAMED_AFTER = 4  # tokens between a value and the end of its sentence that name what it is the value of
OTHER_WEIGHT = 0.1  # what people and tools say: enough to read it, not to learn it by heart


@dataclass
class Row:
    """Hold one sequence, token by token.

    weights: of the loss. queries: number of the question whose answer it is in, or -1. messages: number of its message,
    or -1 if it is never written. told: 0 unrelated, 1 in a message that states a fact, 2 where the fact is complete.
    """

    ids: list[int]
    weights: list[float]
    queries: list[int]
    messages: list[int]
    told: list[int]

    @classmethod
    def empty(cls) -> "Row":
        """Return a row without tokens."""
        return cls([], [], [], [], [])

    def add(
        self,
        ids: Sequence[int],
        head: int,
        *,
        trained: bool,
        query: int = -1,
        message: int = -1,
        told: Sequence[int] | None = None,
    ) -> None:
        """Append one message's tokens; the model says those from `head` on, when `trained`."""
        size = len(ids)
        self.ids.extend(ids)
        said = [1.0] * (size - head - 1) + [0.0] if trained else [OTHER_WEIGHT] * (size - head)
        self.weights.extend([0.0] * head + said)
        self.queries.extend(([-1] * head + [query] * (size - head - 1) + [-1])[:size])
        self.messages.extend([message] * size)
        self.told.extend([0] * size if told is None else told)


@dataclass(frozen=True)
class Batch:
    """Hold padded tensors `[B, T]`; padding stands at the right and has weight 0."""

    ids: Tensor
    weights: Tensor
    queries: Tensor
    messages: Tensor
    told: Tensor
    real: Tensor


def turns_of(query: Query) -> list[Turn]:
    """Return the turns of a query, with its recalled block first."""
    recalled = [Turn(query.recalled, "recalled")] if query.recalled else []
    return [*recalled, *query.turns]


def system_row(tokenizer: PreTrainedTokenizerFast, episode: Episode) -> Row:
    """Return a row that holds the system message, if there is one."""
    row = Row.empty()
    if text := system_text(episode):
        ids = tokenizer(f"<|im_start|>system\n{text}<|im_end|>\n", add_special_tokens=False).input_ids
        row.add(ids, len(ids), trained=False)
    return row


def add_turns(row: Row, tokenizer: PreTrainedTokenizerFast, turns: Sequence[Turn], *, query: int = -1) -> None:
    """Append turns as messages of the conversation; system messages have number -1, as they are never written."""
    number = max(row.messages, default=-1)
    for turn, (ids, head) in zip(turns, encode_turns(tokenizer, turns), strict=True):
        written = turn.message["role"] != "system"
        number += written
        asked = query if turn.kind == "answer" else -1
        told = _told(tokenizer, turn, ids) if turn.facts else None
        row.add(ids, head, trained=turn.trained, query=asked, message=number if written else -1, told=told)


def _told(tokenizer: PreTrainedTokenizerFast, turn: Turn, ids: Sequence[int]) -> list[int]:
    """Return 2 for the tokens at which a stated value and what it is the value of are both known, else 1.

    These are the value's own tokens, or the end of a sentence that first gives the value: "X is the main branch."
    """
    marks = [1] * len(ids)
    spellings = [spelling for _, value in turn.facts for spelling in (f" {value}", value)]
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    ends = [at for at, token in enumerate(tokens) if token in SENTENCE_ENDS]
    for spelling in tokenizer.backend_tokenizer.encode_batch(spellings, add_special_tokens=False):
        size = len(spelling.ids)
        for start in range(len(ids) - size + 1):
            if ids[start : start + size] != spelling.ids:
                continue
            end = next((at for at in ends if at >= start + size), len(ids) - 1)
            if end - start - size < NAMED_AFTER:
                marks[start : start + size] = [2] * size
            else:
                marks[end] = 2
    return marks


def flat_row(tokenizer: PreTrainedTokenizerFast, episode: Episode, limit: int) -> Row:
    """Return the whole episode as one sequence of at most `limit` tokens: history, then as many queries as fit."""
    row = system_row(tokenizer, episode)
    add_turns(row, tokenizer, episode.history)
    for number, query in enumerate(episode.queries):
        before = len(row.ids)
        add_turns(row, tokenizer, turns_of(query), query=number)
        if len(row.ids) > limit:
            cut_row(row, before)
            break
    return row


def extend_row(row: Row, other: Row) -> None:
    """Append the tokens of `other`."""
    for name in ("ids", "weights", "queries", "messages", "told"):
        getattr(row, name).extend(getattr(other, name))


def cut_row(row: Row, size: int) -> None:
    """Drop the tokens from number `size` on."""
    for name in ("ids", "weights", "queries", "messages", "told"):
        del getattr(row, name)[size:]


def collate(rows: Sequence[Row], pad: int) -> Batch:
    """Return the rows padded at the right to one length."""
    width = max(len(row.ids) for row in rows)

    def padded(name: str, fill: float) -> Tensor:
        return torch.tensor([[*getattr(row, name), *[fill] * (width - len(row.ids))] for row in rows])

    real = torch.tensor([[True] * len(row.ids) + [False] * (width - len(row.ids)) for row in rows])
    return Batch(
        padded("ids", pad),
        padded("weights", 0.0),
        padded("queries", -1),
        padded("messages", -1),
        padded("told", 0),
        real,
    )


def jumping_positions(rng: random.Random, batch: Batch, reach: float = 1.0) -> Tensor:
    """Return position ids `[B, T]` with jumps, so that short rows also train far positions (PoSE, arXiv 2309.10400).

    reach: how much of the positions that a row does not fill its jumps may use; above 1, others behind them.
    """
    size, width = batch.ids.shape
    positions = torch.arange(width).repeat(size, 1)
    for row in range(size):
        spare = int(reach * (POSITIONS - width))
        for _ in range(rng.choice((0, 1, 2, 3))):
            jump = rng.randrange(max(1, spare // rng.choice((2, 4, 16))))
            positions[row, rng.randrange(width) :] += jump
            spare -= jump
    return positions
