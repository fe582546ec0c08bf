"""Train an adapter on the frozen backbone: write the history, drop it, answer from the state (paper, equation 17)."""

import math
import random
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from backbone.adapter.model import HiddenOutput, MemoryModel
from backbone.adapter.state import MemoryState
from backbone.tiny.batches import Batch, Row, add_turns, collate, jumping_positions, system_row, turns_of
from backbone.tiny.episodes import Episode, EpisodeOptions, Query, Turn, generate_episode, retold
from backbone.tiny.gates import gate_logits, gate_loss
from backbone.tiny.noise import noise_segment
from backbone.tiny.pretrain import PretrainOptions, Report, exact_answers, training_batch, weighted_loss
from backbone.tiny.toolset import tool_names

__all__ = ["MemoryTrainingOptions", "answer_from_state", "read_and_write", "train_memory", "write_history"]

PASS_TOKENS = 512  # what one pass of the window sees, as in use
IN_PROMPT = 0.2  # the share of mixed lessons in which nothing has left the prompt
SHOWN = PretrainOptions(
    other_weight=0.0,
    action_share=0.5,
    plain_reply_share=0.4,
    acting_facts=3,
    value_first_share=0.2,
    generic_share=0.35,
    explained_share=0.85,
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
    the questions are about what was never told. averaged: end halfway between the weights before and after.
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
    averaged: bool = False


@dataclass(frozen=True)
class _Lesson:
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
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, episode: Episode, query: Query, tail: int
) -> Row:
    """Return what the prompt holds when the history has left it: system, the newest exchanges, the question."""
    row = system_row(tokenizer, episode)
    for _ in range(tail):
        messages = noise_segment(rng, tool_names(episode.tools))
        add_turns(row, tokenizer, [Turn(message, "noise") for message in messages])
    if tail and rng.random() < 0.2:
        telling, query = retold(rng, query)
        add_turns(row, tokenizer, [replace(turn, trained=False) for turn in telling])
    row.weights = [0.0] * len(row.ids)
    start = len(row.ids)
    add_turns(row, tokenizer, turns_of(query), query=0)
    row.weights[start:] = [w if w == 1.0 else 0.0 for w in row.weights[start:]]
    return row


def _lesson(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, options: MemoryTrainingOptions, progress: float
) -> _Lesson:
    """Return a step's material; tools and newer exchanges make long prompts, so all rows have them or none has."""
    shape = _episode_options(rng, progress, options)
    tail = rng.choice((0, 0, 1)) if options.mixed else 0
    count = max(2, min(options.episodes, options.tokens // (40 * shape.facts + 50 * shape.noise)))
    histories: list[Row] = []
    asked: list[tuple[Row, int]] = []
    for number in range(count):
        episode = generate_episode(rng, shape)
        row = system_row(tokenizer, episode)
        add_turns(row, tokenizer, episode.history)
        histories.append(row)
        asked += [(_question_row(rng, tokenizer, episode, query, tail), number) for query in episode.queries]
    rng.shuffle(asked)
    width = max(len(row.ids) for row, _ in asked)
    asked = asked[: max(1, options.tokens // width)]
    questions = collate([row for row, _ in asked], tokenizer.pad_token_id)
    return _Lesson(collate(histories, tokenizer.pad_token_id), questions, torch.tensor([number for _, number in asked]))


def read_and_write(
    model: MemoryModel, batch: Batch, memory: MemoryState | None, positions: Tensor | None = None
) -> HiddenOutput:
    """Run a batch as it is run in use: what people, tools and the model said is written, system messages are not.

    The attention mask is there for positions that jump: `pretrain.read_batch` says why.
    """
    written = (batch.messages >= 0) & batch.real
    messages = batch.messages.masked_fill(~written, -1) if model.config.granularity == "message" else None
    return model.hidden_states(
        batch.ids,
        attention_mask=torch.ones_like(batch.ids),
        position_ids=positions,
        memory=memory,
        write_mask=written,
        segment_ids=messages,
        use_cache=False,
    )


def _passes(batch: Batch) -> list[Batch]:
    """Return the histories in pieces of at most PASS_TOKENS, as windows are in use."""
    return [
        Batch(*(getattr(batch, name)[:, start : start + PASS_TOKENS] for name in Batch.__dataclass_fields__))
        for start in range(0, batch.ids.shape[1], PASS_TOKENS)
    ]


def write_history(model: MemoryModel, batch: Batch, rng: random.Random | None = None) -> MemoryState:
    """Return the memory after the histories, read in passes of at most PASS_TOKENS."""
    memory = model.empty_memory(len(batch.ids))
    for part in _passes(batch):
        positions = None if rng is None else jumping_positions(rng, part)
        out = read_and_write(model, part, memory, positions)
        memory = MemoryState(out.memory.layers, out.memory.fingerprint)
    return memory


def answer_from_state(model: MemoryModel, memory: MemoryState, lesson: _Lesson) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss, predictions and their places for the questions, each read with its own history's memory."""
    layers = {name: state[lesson.owners] for name, state in memory.layers.items()}
    hidden = read_and_write(model, lesson.questions, MemoryState(layers, memory.fingerprint)).hidden
    return weighted_loss(model.backbone, hidden, lesson.questions)


def _schedule(step: int, steps: int, *, hold: float) -> float:
    progress = step / steps
    tail = 0.5 * (1 + math.cos(math.pi * max(0.0, progress - hold) / (1 - hold)))
    return min(1.0, (step + 1) / 30) * max(0.02, tail)


def _from_state(
    model: MemoryModel,
    tokenizer: PreTrainedTokenizerFast,
    options: MemoryTrainingOptions,
    rng: random.Random,
    progress: float,
) -> tuple[Tensor, Tensor, int, int]:
    """Return the losses of a step that answers from the state, how many answers were right, and of how many."""
    lesson = _lesson(rng, tokenizer, options, progress)
    with gate_logits(model) as logits:
        memory = write_history(model, lesson.history, rng)
    loss, predicted, places = answer_from_state(model, memory, lesson)
    return loss, gate_loss(logits, _passes(lesson.history), model), *exact_answers(lesson.questions, predicted, places)


def _in_prompt(
    model: MemoryModel, tokenizer: PreTrainedTokenizerFast, options: MemoryTrainingOptions, rng: random.Random
) -> tuple[Tensor, Tensor, int, int]:
    """Return the same of a step in which nothing has left the prompt, while the memory is written and read."""
    batch = training_batch(rng, tokenizer, 1.0, replace(SHOWN, tokens=options.tokens))
    with gate_logits(model) as logits:
        hidden = read_and_write(model, batch, None, jumping_positions(rng, batch)).hidden
    loss, predicted, places = weighted_loss(model.backbone, hidden, batch)
    return loss, gate_loss(logits, [batch], model), *exact_answers(batch, predicted, places)


def train_memory(
    model: MemoryModel, tokenizer: PreTrainedTokenizerFast, options: MemoryTrainingOptions, report: Report, name: str
) -> MemoryModel:
    """Train the adapter in place and return it; `report(name, step, steps, figures)` is called each step."""
    rng = random.Random(options.seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    before = [parameter.detach().clone() for parameter in parameters] if options.averaged else []
    optimizer = torch.optim.AdamW(parameters, lr=options.lr, betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(options.steps if options.stop is None else options.stop):
        started = time.perf_counter()
        if options.mixed and rng.random() < IN_PROMPT:
            loss, gates, right, count = _in_prompt(model, tokenizer, options, rng)
        else:
            loss, gates, right, count = _from_state(model, tokenizer, options, rng, step / options.steps)
        torch.autograd.backward(loss + gates)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * _schedule(step, options.steps, hold=0.2 if options.mixed else 0.5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        figures = {"loss": loss.item(), "gates": gates.item(), "exact": right / max(1, count)}
        report(name, step, options.steps, {**figures, "seconds": time.perf_counter() - started})
    with torch.no_grad():
        for parameter, old in zip(parameters, before, strict=False):  # before is empty unless averaged
            parameter.add_(old).div_(2)
    model.refresh_fingerprint()
    return model
