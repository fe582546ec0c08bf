"""Train the bundled backbone on whole conversations in its window."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from backbone.tiny.batches import POSITIONS, Batch, Row, collate, cut_row, extend_row, flat_row, jumping_positions
from backbone.tiny.episodes import EpisodeOptions, generate_episode
from backbone.tiny.optimizer import backbone_optimizers

__all__ = ["PretrainOptions", "Report", "backbone_config", "exact_answers", "pretrain", "read_batch"]

Report = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True)
class PretrainOptions:
    """Set the length of the training, its step size and its material.

    other_weight: loss weight of what people and tools say. curriculum: begin with few facts and short texts.
    widths: row lengths to draw from, instead of the usual ones. acting_facts: facts that actions need, where tools are.
    value_first_share: of the statements, in phrasings that name the value first. generic_share: of the conversations,
    about tools of other agents. unknown_share: of the requests, about what was never said. update_shares: of the facts,
    those that are changed later; drawn for each conversation. explained_share: of the calls, behind the fact that they
    are made from. quoted_share: of the unrelated exchanges, behind a recalled block of other work. restated_share:
    of the changes, said as if for the first time. reach: how far positions jump, in what the row leaves of 4,096;
    without a curriculum.
    """

    steps: int = 1000
    tokens: int = 6144
    lr: float = 4e-3
    seed: int = 0
    other_weight: float = 0.1
    action_share: float = 0.2
    tools_share: float = 0.3
    plain_reply_share: float = 0.25
    acting_facts: int = 0
    value_first_share: float = 0.1
    generic_share: float = 0.25
    unknown_share: float = 0.15
    update_shares: tuple[float, ...] = (0.3,)
    explained_share: float = 0.0
    quoted_share: float = 0.0
    restated_share: float = 0.0
    reach: float = 1.0
    widths: tuple[int, ...] = ()
    curriculum: bool = True


def backbone_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """Return the shape of the bundled backbone."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        head_dim=32,
        max_position_embeddings=2 * POSITIONS,
        rope_parameters={"rope_theta": 100_000.0, "rope_type": "default"},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _width(rng: random.Random, progress: float) -> int:
    """Return the row length: short rows first, longer ones as the training goes on."""
    if progress < 0.1:
        return 192
    if progress < 0.35:
        return rng.choice((192, 256, 384))
    return rng.choice((192, 256, 384, 512, 768)) if progress < 0.8 else rng.choice((256, 512, 768, 1536))


def _shape(rng: random.Random, width: int, progress: float, options: PretrainOptions) -> EpisodeOptions:
    updates = rng.choice(options.update_shares)
    facts = max(1, int(rng.randrange(1, max(2, min(18, width // 40))) / (0.7 + updates)))
    if progress < 0.1:
        facts, noise = rng.randrange(1, 5), 0
    else:
        noise = rng.randrange(max(1, (width - 60 - facts * 30) // 60))
    return EpisodeOptions(
        facts=min(16, facts),
        noise=noise,
        queries=max(4, (width - facts * 30 - noise * 60) // 26),
        update_share=updates,
        recalled_share=0.12,
        unknown_share=options.unknown_share,
        action_share=options.action_share,
        tools_share=options.tools_share,
        plain_reply_share=options.plain_reply_share,
        acting_facts=options.acting_facts,
        value_first_share=options.value_first_share,
        explained_share=options.explained_share,
        quoted_share=options.quoted_share,
        restated_share=options.restated_share,
    )


def training_batch(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, progress: float, options: PretrainOptions
) -> Batch:
    """Return a step's conversations, as they are `progress` (0 to 1) into the training."""
    if not options.curriculum:
        progress = 0.35 + 0.65 * progress
    width = rng.choice(options.widths) if options.widths else _width(rng, progress)
    generic = 0.0 if progress < 0.1 else options.generic_share
    unrelated = EpisodeOptions(0, 1, 0, quoted_share=options.quoted_share)
    rows: list[Row] = []
    while len(rows) < max(1, options.tokens // width):
        row = flat_row(
            tokenizer, generate_episode(rng, _shape(rng, width, progress, options), generic_share=generic), width
        )
        while len(row.ids) < width * 0.75:  # short conversations share a row, as turns of one longer conversation do
            extra = flat_row(tokenizer, generate_episode(rng, unrelated, generic_share=generic), width)
            if len(row.ids) + len(extra.ids) > width:
                break
            extend_row(row, extra)
        cut_row(row, width)
        rows.append(row)
    batch = collate(rows, tokenizer.pad_token_id)
    others = (batch.weights > 0) & (batch.weights < 1)
    return replace(batch, weights=batch.weights.masked_fill(others, options.other_weight))


def read_batch(model: PreTrainedModel, batch: Batch, positions: Tensor) -> Tensor:
    """Return the hidden states `[B, T, d]` of a batch read at `positions`.

    Without an attention mask, transformers takes every jump of the positions for the start of another sequence, and
    nothing behind it sees what was said before. Padding stands at the right, where no real token sees it.
    """
    decoder = model.get_submodule("model")
    everything = torch.ones_like(batch.ids)
    out = decoder(input_ids=batch.ids, position_ids=positions, attention_mask=everything, use_cache=False)
    return cast(Tensor, out.last_hidden_state)


def weighted_loss(model: PreTrainedModel, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weighted mean of the token losses, and the predictions and the places `[N, 2]` they were made for.

    The mean is 0 where no token has a weight: a short row may hold nothing but a recalled block.
    """
    places = (batch.weights[:, 1:] > 0).nonzero()
    rows, columns = places[:, 0], places[:, 1]
    logits = F.linear(hidden[rows, columns], model.get_parameter("model.embed_tokens.weight"))
    targets, weights = batch.ids[rows, columns + 1], batch.weights[rows, columns + 1]
    losses = F.cross_entropy(logits, targets, reduction="none")
    return (losses * weights).sum() / weights.sum().clamp_min(1.0), logits.argmax(-1), places


def exact_answers(batch: Batch, predicted: Tensor, places: Tensor) -> tuple[int, int]:
    """Return how many answers were predicted in every token, and how many there were."""
    rows, columns = places[:, 0], places[:, 1] + 1
    numbers = batch.queries[rows, columns]
    asked = numbers >= 0
    keys = rows[asked] * 1000 + numbers[asked]
    _, index = torch.unique(keys, return_inverse=True)
    count = int(index.max()) + 1 if len(index) else 0
    right = (predicted == batch.ids[rows, columns])[asked]
    correct = torch.ones(count, dtype=torch.long).scatter_reduce(0, index, right.long(), "amin")
    return int(correct.sum()), count


def _schedule(step: int, steps: int) -> float:
    progress = step / steps
    return min(1.0, (step + 1) / 50) * (1.0 if progress < 0.4 else max(0.02, (1 - progress) / 0.6))


def pretrain(
    tokenizer: PreTrainedTokenizerFast,
    options: PretrainOptions,
    report: Report,
    name: str = "backbone",
    model: Qwen3ForCausalLM | None = None,
) -> Qwen3ForCausalLM:
    """Return a trained backbone, from random weights or going on with `model`.

    `report(name, step, steps, figures)` is called each step.
    """
    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)
    if model is None:
        model = Qwen3ForCausalLM(backbone_config(tokenizer))
    model.train()
    optimizers = backbone_optimizers(model, options.lr)
    for step in range(options.steps):
        progress = step / options.steps
        batch = training_batch(rng, tokenizer, progress, options)
        started = time.perf_counter()
        # What has to be found is learned first where it is near, and only then from anywhere.
        reach = max(0.0, 2 * progress - 1) if options.curriculum else options.reach
        positions = jumping_positions(rng, batch, reach)
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            loss, predicted, places = weighted_loss(model, read_batch(model, batch, positions), batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = options.lr * _schedule(step, options.steps)
            optimizer.step()
        model.zero_grad(set_to_none=True)
        right, count = exact_answers(batch, predicted, places)
        seconds = time.perf_counter() - started
        report(name, step, options.steps, {"loss": loss.item(), "exact": right / max(1, count), "seconds": seconds})
    model.train(mode=False)
    return model
