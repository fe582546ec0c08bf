"""Train an adapter on the frozen backbone: write the history, drop it, answer from the state (paper, equation 17)."""

import math
import random
import time
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from backbone.adapter.model import HiddenOutput, MemoryModel
from backbone.adapter.state import MemoryState
from backbone.tiny.batches import Batch, jumping_positions
from backbone.tiny.gates import gate_logits, gate_loss
from backbone.tiny.lessons import Lesson, MemoryTrainingOptions, draw_lesson
from backbone.tiny.pretrain import Report, exact_answers, training_batch, weighted_loss

__all__ = ["answer_from_state", "read_and_write", "train_memory", "write_history"]

PASS_TOKENS = 512  # what one pass of the window sees, as in use


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


def answer_from_state(model: MemoryModel, memory: MemoryState, lesson: Lesson) -> tuple[Tensor, Tensor, Tensor]:
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
    lesson = draw_lesson(rng, tokenizer, options, progress)
    with gate_logits(model) as logits:
        memory = write_history(model, lesson.history, rng)
    loss, predicted, places = answer_from_state(model, memory, lesson)
    return loss, gate_loss(logits, _passes(lesson.history), model), *exact_answers(lesson.questions, predicted, places)


def _in_prompt(
    model: MemoryModel, tokenizer: PreTrainedTokenizerFast, options: MemoryTrainingOptions, rng: random.Random
) -> tuple[Tensor, Tensor, int, int]:
    """Return the same of a step in which nothing has left the prompt, while the memory is written and read."""
    batch = training_batch(rng, tokenizer, 1.0, replace(options.shown, tokens=options.tokens))
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
        if options.mixed and rng.random() < options.in_prompt:
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
