"""Make the bundled backbone: tokenizer, decoder, and one adapter each for MSW, TSW and SSW.

Run `python -m backbone.tiny.recipe`; it writes the files that `backbone.load_backbone()` loads. `--out` writes
elsewhere. `--quick` goes the same way in less than a minute and makes a model that has learned nothing; it needs
`--out`.
"""

import argparse
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3ForCausalLM

from backbone.adapter.config import DeltaMemConfig
from backbone.adapter.files import load_adapter, save_adapter
from backbone.adapter.model import MemoryModel, attach_memory
from backbone.tiny.memory_start import whitened_start
from backbone.tiny.memory_training import train_memory
from backbone.tiny.pretrain import PretrainOptions, pretrain
from backbone.tiny.stages import (
    ACTIONS,
    ANY_TOOLS,
    BACKWARDS,
    EXTEND,
    LEARN,
    REFINE,
    REMEMBER,
    SETTLE,
    SETTLE_IN,
    SHARPEN,
    Stages,
)
from backbone.tiny.tokenizer import train_tokenizer

__all__ = ["FULL", "QUICK", "Recipe", "Round", "main", "run_recipe"]

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


@dataclass(frozen=True)
class Round:
    """Train the backbone through its phases, freeze it, and take adapters through their stages.

    last: the share that the last phase, of this round or before, has in the backbone's weights; the phase before it has
    the rest.
    """

    backbone: Sequence[PretrainOptions]
    memory: Stages
    last: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """Set every size of the training; each round goes on from the weights of the round before."""

    vocab_size: int = 3072
    tokenizer_episodes: int = 6000
    start_conversations: int = 300
    rounds: Sequence[Round] = (
        Round((LEARN, SETTLE, SHARPEN), REMEMBER),
        Round((EXTEND, BACKWARDS, ANY_TOOLS, ACTIONS), REFINE),
        # What one of the last two phases gets wrong, the other one gets right, and their mean as well. The bundled
        # adapters have settled in on the even mean; the share was chosen afterwards, and costs them nothing measurable.
        Round((), SETTLE_IN, last=0.7),
    )


def _quick(of: Round, *steps: int) -> Round:
    """Return the round with `steps` for its phases and hardly any for its stages."""
    phases = [replace(phase, steps=count, tokens=768) for phase, count in zip(of.backbone, steps, strict=True)]
    memory = {
        name: tuple(replace(stage, steps=2, stop=None, tokens=512, episodes=2, questions=2) for stage in stages)
        for name, stages in of.memory.items()
    }
    return replace(of, backbone=phases, memory=memory)


FULL = Recipe()
QUICK = Recipe(
    tokenizer_episodes=300,
    start_conversations=30,
    rounds=tuple(_quick(part, *steps) for part, steps in zip(FULL.rounds, ((6, 2, 2), (2, 2, 2, 2), ()), strict=True)),
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
        tokenizer.save_pretrained(out / "model")
        model: Qwen3ForCausalLM | None = None
        before: dict[str, Tensor] = {}
        made: set[str] = set()
        for number, part in enumerate(recipe.rounds, 1):
            for phase, options in enumerate(part.backbone, 1):
                before = {} if model is None else {k: v.clone() for k, v in model.state_dict().items()}
                model = pretrain(tokenizer, options, report, f"round {number}: backbone, phase {phase}", model)
            if model is None:
                raise ValueError("the first round of a recipe needs a phase of the backbone")
            if part.last < 1:
                mean = {k: torch.lerp(before[k], v, part.last) for k, v in model.state_dict().items()}
                model.load_state_dict(mean)
            model.save_pretrained(out / "model")
            for name, stages in part.memory.items():
                adapter = _adapter(name, tokenizer, out, recipe, anew=name not in made)
                for stage, lessons in enumerate(stages, 1):
                    train_memory(adapter, tokenizer, lessons, report, f"round {number}: {name}, stage {stage}")
                save_adapter(adapter, out / "adapters" / name)
                made.add(name)


def _adapter(name: str, tokenizer: PreTrainedTokenizerFast, out: Path, recipe: Recipe, *, anew: bool) -> MemoryModel:
    """Attach an adapter to the saved backbone: a new one, or the one of the round before."""
    frozen = AutoModelForCausalLM.from_pretrained(out / "model", dtype=torch.float32)
    if not anew:
        return load_adapter(frozen, out / "adapters" / name)
    memory_model = attach_memory(frozen, ADAPTERS[name], seed=1)
    if ADAPTERS[name].granularity == "message":
        whitened_start(memory_model, tokenizer, conversations=recipe.start_conversations)
    return memory_model


def main() -> None:
    """Run the recipe from the command line."""
    parser = argparse.ArgumentParser(prog="python -m backbone.tiny.recipe", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="go through every phase in less than a minute")
    parser.add_argument(
        "--out", type=Path, help="folder to write model/ and adapters/ to; the bundled ones if left out"
    )
    arguments = parser.parse_args()
    if arguments.quick and arguments.out is None:
        parser.error("--quick needs --out: what it makes has learned nothing, and must not replace the bundled model")
    run_recipe(QUICK if arguments.quick else FULL, arguments.out or Path(__file__).parent, Console())


if __name__ == "__main__":
    main()
