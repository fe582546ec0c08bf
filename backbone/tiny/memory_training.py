"""Train an adapter on the frozen backbone: write the history, drop it, answer from the state (paper, equation 17)."""

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from backbone.adapter.model import HiddenOutput, MemoryModel
from backbone.adapter.state import MemoryState
from backbone.tiny.batches import Batch, Row, add_turns, collate, jumping_positions, system_row, turns_of
from backbone.tiny.episodes import Episode, EpisodeOptions, Query, Turn, generate_episode, retold
from backbone.tiny.noise import noise_segment
from backbone.tiny.pretrain import Report, exact_answers, weighted_loss

__all__ = ["MemoryTrainingOptions", "answer_from_state", "train_memory", "write_history"]

PASS_TOKENS = 512  # what one pass of the window sees, as in use
SHUT_LOGIT = -8.0  # a gate of 3e-4: thousands of unrelated tokens leave the state as it was
SHUT_WEIGHT = 0.02
OPEN_LOGIT = 0.0
OPEN_WEIGHT = 0.1
EASY = 0.1  # the share of the training after which there are more facts than two


@dataclass(frozen=True)
class MemoryTrainingOptions:
    """Set the length of the training, the tokens of history and of questions in a step, and the step size.

    stop: the step to end at, before the step size has come down. mixed: lessons with unrelated text and tools.
    """

    steps: int = 1000
    tokens: int = 4096
    episodes: int = 16
    questions: int = 8
    lr: float = 5e-3
    seed: int = 1
    stop: int | None = None
    mixed: bool = False


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
            rng.choice((2, 4, 4, 6, 8, 8, 12)),
            rng.choice((0, 0, 2, 4, 8, 12, 20)),
            options.questions,
            behind=rng.random() < 0.5,
            tools_share=float(rng.random() < 0.2),
            action_share=0.6,
            unknown_share=0.12,
            update_share=0.25,
            plain_reply_share=0.2,
        )
    first = progress < EASY
    return EpisodeOptions(
        rng.randrange(1, 3) if first else rng.choice((2, 3, 4, 4, 5, 6, 8)),
        int(not first and rng.random() < 0.2),
        options.questions,
        update_share=0.0 if first else 0.25,
        unknown_share=0.05 if first else 0.1,
        plain_reply_share=0.1 if first else 0.2,
        tools_share=0.0,
    )


def _question_row(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, episode: Episode, query: Query, tail: int
) -> Row:
    """Return what the prompt holds when the history has left it: system, the newest exchanges, the question."""
    row = system_row(tokenizer, episode)
    for _ in range(tail):
        messages = noise_segment(rng, tools=bool(episode.tools))
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


def _read(
    model: MemoryModel, batch: Batch, memory: MemoryState | None, positions: Tensor | None = None
) -> HiddenOutput:
    """Run a batch as it is run in use: what people, tools and the model said is written, system messages are not."""
    written = (batch.messages >= 0) & batch.real
    messages = batch.messages.masked_fill(~written, -1) if model.config.granularity == "message" else None
    return model.hidden_states(
        batch.ids, position_ids=positions, memory=memory, write_mask=written, segment_ids=messages, use_cache=False
    )


def _columns(batch: Batch, start: int, stop: int) -> Batch:
    return Batch(*(getattr(batch, name)[:, start:stop] for name in Batch.__dataclass_fields__))


def write_history(model: MemoryModel, batch: Batch, rng: random.Random | None = None) -> MemoryState:
    """Return the memory after the histories, read in passes of at most PASS_TOKENS, as windows are in use."""
    memory: MemoryState | None = None
    for start in range(0, batch.ids.shape[1], PASS_TOKENS):
        part = _columns(batch, start, start + PASS_TOKENS)
        positions = None if rng is None else jumping_positions(rng, part)
        out = _read(model, part, memory, positions)
        memory = MemoryState(out.memory.layers, out.memory.fingerprint)
    return model.empty_memory(len(batch.ids)) if memory is None else memory


def answer_from_state(model: MemoryModel, memory: MemoryState, lesson: _Lesson) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss, predictions and their places for the questions, each read with its own history's memory."""
    layers = {name: state[lesson.owners] for name, state in memory.layers.items()}
    batch = lesson.questions
    given = MemoryState(layers, memory.fingerprint)
    return weighted_loss(model.backbone, _read(model, batch, given).hidden, batch)


@contextmanager
def _gate_logits(model: MemoryModel) -> Iterator[list[Tensor]]:
    """Collect the write gates' logits `[B, T, gates]` of every layer and pass."""
    collected: list[Tensor] = []

    def hook(layer: int) -> Callable[..., None]:
        memory = model.layers[layer]
        return lambda _module, args: collected.append(F.linear(args[0], memory.beta_proj, memory.beta_bias))

    modules = [model.backbone.get_submodule(f"{memory.name}.q_proj") for memory in model.layers]
    handles = [module.register_forward_pre_hook(hook(number)) for number, module in enumerate(modules)]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()


def _gate_loss(logits: list[Tensor], batch: Batch, model: MemoryModel) -> Tensor:
    """Return the price of gates that open where no value is told, and of gates that stay shut where one is.

    The paper asks for a mean gate of 0.05 everywhere. The data knows where the facts are: with one write a token, in
    the values' tokens; with one a message, in the messages that state something.
    """
    level = 2 if model.config.granularity == "token" else 1
    parts = []
    for number in range(0, len(logits), len(model.layers)):
        start = number // len(model.layers) * PASS_TOKENS
        part = _columns(batch, start, start + PASS_TOKENS)
        written = part.real & (part.messages >= 0)
        z = torch.stack(logits[number : number + len(model.layers)])
        shut, told = z[:, written & (part.told < level)], z[:, written & (part.told >= level)]
        if shut.numel():
            parts.append(SHUT_WEIGHT * F.relu(shut - SHUT_LOGIT).mean() + shut.sigmoid().mean())
        if told.numel():
            parts.append(OPEN_WEIGHT * F.relu(OPEN_LOGIT - told).mean())
    return torch.stack(parts).sum()


def _schedule(step: int, steps: int, *, hold: float) -> float:
    progress = step / steps
    tail = 0.5 * (1 + math.cos(math.pi * max(0.0, progress - hold) / (1 - hold)))
    return min(1.0, (step + 1) / 30) * max(0.02, tail)


def train_memory(
    model: MemoryModel, tokenizer: PreTrainedTokenizerFast, options: MemoryTrainingOptions, report: Report, name: str
) -> MemoryModel:
    """Train the adapter in place and return it; `report(name, step, steps, figures)` is called each step."""
    rng = random.Random(options.seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.lr, betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(options.steps if options.stop is None else options.stop):
        lesson = _lesson(rng, tokenizer, options, step / options.steps)
        started = time.perf_counter()
        with _gate_logits(model) as logits:
            memory = write_history(model, lesson.history, rng)
        loss, predicted, places = answer_from_state(model, memory, lesson)
        gates = _gate_loss(logits, lesson.history, model)
        torch.autograd.backward(loss + gates)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * _schedule(step, options.steps, hold=0.2 if options.mixed else 0.5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        right, count = exact_answers(lesson.questions, predicted, places)
        figures = {"loss": loss.item(), "gates": gates.item(), "exact": right / max(1, count)}
        report(name, step, options.steps, {**figures, "seconds": time.perf_counter() - started})
    model.refresh_fingerprint()
    return model
