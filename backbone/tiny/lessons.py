"""Draw the lessons of an adapter: histories to write, and questions about them for when they have left the prompt."""

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from backbone.tiny.batches import Batch, Row, add_turns, collate, system_row, turns_of
from backbone.tiny.episodes import Episode, EpisodeOptions, Query, generate_episode, retold, unrelated_turns
from backbone.tiny.pretrain import PretrainOptions
from backbone.tiny.toolset import tool_names

__all__ = ["SHOWN", "WORK_WEIGHT", "Lesson", "MemoryTrainingOptions", "draw_lesson"]

QUOTED_SHARE = 0.25  # of the lessons, those in which recalled blocks of other work come before newer exchanges
WORK_WEIGHT = 0.2  # of what the model says in those that come before a question: the memory must not be in their way
SHOWN = PretrainOptions(
    other_weight=0.0,
    action_share=0.5,
    plain_reply_share=0.4,
    acting_facts=3,
    value_first_share=0.2,
    generic_share=0.35,
    explained_share=0.85,
    quoted_share=0.1,
    widths=(512, 768),
    curriculum=False,
)


@dataclass(frozen=True)
class MemoryTrainingOptions:
    """Set the length of the training, the tokens of history and of questions in a step, and the step size.

    easy: share of the steps with one or two facts and nothing else. stop: the step to end at, before the step size has
    come down. mixed: lessons with unrelated text and, at times, with everything still in the prompt, where the memory
    must not be in the way; facts are how many a history may have; tools_share of them have tools and requests for them,
    recalled_share recalled blocks before most questions, of which missing_share lack what is asked; unknown_share of
    the questions are about what was never told; in_prompt of the mixed lessons keep everything there, and are made of
    what `shown` says. averaged: end halfway between the weights before and after.
    """

    steps: int = 1000
    tokens: int = 4096
    episodes: int = 16
    questions: int = 8
    lr: float = 5e-3
    seed: int = 1
    easy: float = 0.1
    stop: int | None = None
    mixed: bool = False
    facts: tuple[int, ...] = (2, 4, 4, 6, 8, 8, 12, 16)
    tools_share: float = 0.25
    unknown_share: float = 0.3
    recalled_share: float = 0.12
    missing_share: float = 0.0
    in_prompt: float = 0.2
    shown: PretrainOptions = SHOWN
    averaged: bool = False


@dataclass(frozen=True)
class Lesson:
    """Hold a step's material: the histories, and the questions with the number of the history each belongs to."""

    history: Batch
    questions: Batch
    owners: Tensor


def _episode_options(rng: random.Random, progress: float, options: MemoryTrainingOptions) -> EpisodeOptions:
    """Return the next lesson's shape: plain facts only, then more of them; in the mixed lessons also unrelated text."""
    if options.mixed:
        return EpisodeOptions(
            rng.choice(options.facts),
            rng.choice((0, 0, 2, 4, 8, 12, 20)),
            options.questions,
            behind=rng.random() < 0.5,
            tools_share=float(rng.random() < options.tools_share),
            action_share=0.6,
            acting_facts=2,
            unknown_share=options.unknown_share,
            update_share=rng.choice((0.0, 0.25, 0.5, 1.0)),
            plain_reply_share=0.25,
            value_first_share=0.15,
            restated_share=0.3,
            explained_share=0.85,
            # Questions of a lesson are as long as the longest: blocks come in few lessons, and there in most questions.
            recalled_share=0.6 * (rng.random() < options.recalled_share),
            missing_share=options.missing_share,
        )
    first = progress < options.easy
    return EpisodeOptions(
        rng.randrange(1, 3) if first else rng.choice((2, 3, 4, 4, 5, 6, 8)),
        int(not first and rng.random() < 0.2),
        options.questions,
        update_share=0.0 if first else 0.25,
        unknown_share=0.05 if first else 0.2,
        plain_reply_share=0.1 if first else 0.2,
        tools_share=0.0,
    )


def _question_row(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, episode: Episode, query: Query, tail: int, quoted: float
) -> Row:
    """Return what the prompt holds when the history has left it: system, the newest exchanges, the question."""
    row = system_row(tokenizer, episode)
    for _ in range(tail):
        add_turns(row, tokenizer, unrelated_turns(rng, tool_names(episode.tools), quoted))
    if tail and rng.random() < 0.2:
        telling, query = retold(rng, query)
        add_turns(row, tokenizer, [replace(turn, trained=False) for turn in telling])
    row.weights = [WORK_WEIGHT if w == 1.0 else 0.0 for w in row.weights]
    start = len(row.ids)
    add_turns(row, tokenizer, turns_of(query), query=0)
    row.weights[start:] = [w if w == 1.0 else 0.0 for w in row.weights[start:]]
    return row


def draw_lesson(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, options: MemoryTrainingOptions, progress: float
) -> Lesson:
    """Return a step's material; tools, newer exchanges and blocks make long prompts: most rows have them, or none."""
    shape = _episode_options(rng, progress, options)
    tail = rng.choice((0, 0, 1)) if options.mixed else 0
    quoted = 0.6 * (rng.random() < QUOTED_SHARE)
    count = max(2, min(options.episodes, options.tokens // (40 * shape.facts + 50 * shape.noise)))
    histories: list[Row] = []
    asked: list[tuple[Row, int]] = []
    for number in range(count):
        episode = generate_episode(rng, shape)
        row = system_row(tokenizer, episode)
        add_turns(row, tokenizer, episode.history)
        histories.append(row)
        asked += [(_question_row(rng, tokenizer, episode, query, tail, quoted), number) for query in episode.queries]
    rng.shuffle(asked)
    width = max(len(row.ids) for row, _ in asked)
    asked = asked[: max(1, options.tokens // width)]
    questions = collate([row for row, _ in asked], tokenizer.pad_token_id)
    return Lesson(collate(histories, tokenizer.pad_token_id), questions, torch.tensor([number for _, number in asked]))
