"""Make the bundled backbone: tokenizer, decoder, and one adapter each for MSW, TSW and SSW.

Run `python -m backbone.tiny.recipe`; it writes the files that `backbone.load_backbone()` loads. `--quick` goes the same
way in about a minute and makes a model that has learned nothing; `--out` writes elsewhere.
"""

import argparse
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3ForCausalLM

from backbone.adapter.config import DeltaMemConfig
from backbone.adapter.files import save_adapter
from backbone.adapter.model import attach_memory
from backbone.tiny.memory_start import whitened_start
from backbone.tiny.memory_training import MemoryTrainingOptions, train_memory
from backbone.tiny.pretrain import PretrainOptions, pretrain
from backbone.tiny.tokenizer import train_tokenizer

__all__ = ["FULL", "QUICK", "Recipe", "main", "run_recipe"]

# The first layer sees tokens without their surroundings: it has nothing to remember them by.
LAYERS = (1, 2, 3)
# A gate of 0.05 at first: at the usual 0.18 the next dozen tokens overwrite a fact, and nothing is learned. For the
# same reason nothing decays by itself here: what is told is replaced by what contradicts it, not by time passing.
GATE_BIAS = -3.0
MESSAGE_GATE_BIAS = 1.0  # one write a message: few enough to begin with open gates
# With states of 8 rows, as published, values are mistaken for one another; 32 rows take most of that away.
ADAPTERS = {
    "msw": DeltaMemConfig(
        num_states=2, rank=32, alpha=32.0, target_layers=LAYERS, beta_bias_init=GATE_BIAS, update_mode="no_lambda"
    ),
    "tsw": DeltaMemConfig(rank=32, alpha=32.0, target_layers=LAYERS, beta_bias_init=GATE_BIAS, update_mode="no_lambda"),
    "ssw": DeltaMemConfig(
        granularity="message",
        rank=32,
        alpha=64.0,
        target_layers=LAYERS,
        beta_bias_init=MESSAGE_GATE_BIAS,
        update_mode="no_lambda",
    ),
}

LEARN = PretrainOptions()
SETTLE = PretrainOptions(
    steps=650, lr=2.5e-3, seed=10, other_weight=0.02, action_share=0.4, tools_share=0.4, curriculum=False
)
# What the first two leave weak: facts that nobody repeated, far back in long conversations, and calls that need them.
SHARPEN = PretrainOptions(
    steps=1100,
    lr=2.5e-3,
    seed=20,
    other_weight=0.02,
    action_share=0.5,
    tools_share=0.4,
    plain_reply_share=0.5,
    acting_facts=3,
    widths=(256, 512, 768, 1024, 1536),
    curriculum=False,
)
REMEMBER: Mapping[str, tuple[MemoryTrainingOptions, ...]] = {
    "msw": (
        MemoryTrainingOptions(steps=500, stop=320, tokens=3072, lr=1e-2),
        MemoryTrainingOptions(steps=650, tokens=4096, lr=5e-3, seed=2, mixed=True),
        MemoryTrainingOptions(steps=250, tokens=4096, lr=2.5e-3, seed=3, mixed=True),
    ),
    "tsw": (
        MemoryTrainingOptions(steps=500, stop=320, tokens=3072, lr=1e-2),
        MemoryTrainingOptions(steps=300, tokens=3072, lr=5e-3, seed=2, mixed=True),
    ),
    "ssw": (
        MemoryTrainingOptions(steps=500, stop=360, tokens=2560, episodes=40, questions=3, lr=1e-2, easy=1.0),
        MemoryTrainingOptions(steps=600, tokens=2560, episodes=24, questions=5, lr=1e-2, seed=2, easy=0.0),
        MemoryTrainingOptions(steps=300, tokens=3072, lr=5e-3, seed=3, mixed=True),
    ),
}


@dataclass(frozen=True)
class Recipe:
    """Set every size of the training; the backbone goes through its phases in order and is then frozen."""

    vocab_size: int = 3072
    tokenizer_episodes: int = 6000
    backbone: Sequence[PretrainOptions] = (LEARN, SETTLE, SHARPEN)
    memory: Mapping[str, tuple[MemoryTrainingOptions, ...]] = field(default_factory=lambda: REMEMBER)


FULL = Recipe()
QUICK = Recipe(
    tokenizer_episodes=300,
    backbone=[replace(phase, steps=steps, tokens=1536) for phase, steps in zip(FULL.backbone, (6, 2, 2), strict=True)],
    memory={
        name: tuple(replace(stage, steps=3, stop=None, tokens=512, episodes=2, questions=2) for stage in stages)
        for name, stages in REMEMBER.items()
    },
)


class _Progress:
    """Show each phase's progress with the means of its newest figures."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._newest: deque[dict[str, float]] = deque(maxlen=20)

    def __call__(self, phase: str, step: int, steps: int, figures: dict[str, float]) -> None:
        """Take one step's figures."""
        if phase not in self._tasks:
            self._newest.clear()
            self._tasks[phase] = self._progress.add_task(phase, total=steps, figures="")
        self._newest.append(figures)
        means = (f"{name} {sum(f[name] for f in self._newest) / len(self._newest):.3f}" for name in figures)
        self._progress.update(self._tasks[phase], completed=step + 1, figures=" ".join(means))


def run_recipe(recipe: Recipe, out: Path, console: Console) -> None:
    """Train everything and write `model/` and `adapters/` under `out`."""
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console) as progress:
        report = _Progress(progress)
        tokenizer = train_tokenizer(seed=1, vocab_size=recipe.vocab_size, episodes=recipe.tokenizer_episodes)
        model: Qwen3ForCausalLM | None = None
        for number, options in enumerate(recipe.backbone, 1):
            model = pretrain(tokenizer, options, report, f"backbone, phase {number}", model)
        if model is None:
            raise ValueError("a recipe needs at least one phase of the backbone")
        tokenizer.save_pretrained(out / "model")
        model.save_pretrained(out / "model")
        for name in ADAPTERS:
            _make_adapter(name, recipe.memory[name], tokenizer, out, report)


def _make_adapter(
    name: str, stages: Sequence[MemoryTrainingOptions], tokenizer: PreTrainedTokenizerFast, out: Path, report: _Progress
) -> None:
    """Train one adapter on the saved backbone, so that each begins from the same frozen weights."""
    frozen = AutoModelForCausalLM.from_pretrained(out / "model", dtype=torch.float32)
    memory_model = attach_memory(frozen, ADAPTERS[name], seed=1)
    if ADAPTERS[name].granularity == "message":
        whitened_start(memory_model, tokenizer)
    for number, options in enumerate(stages, 1):
        train_memory(memory_model, tokenizer, options, report, f"{name}, stage {number}")
    save_adapter(memory_model, out / "adapters" / name)


def main() -> None:
    """Run the recipe from the command line."""
    parser = argparse.ArgumentParser(prog="python -m backbone.tiny.recipe", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="go through every phase in about a minute")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder to write model/ and adapters/ to"
    )
    arguments = parser.parse_args()
    run_recipe(QUICK if arguments.quick else FULL, arguments.out, Console())


if __name__ == "__main__":
    main()
