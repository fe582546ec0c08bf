"""Make the bundled backbone: tokenizer, decoder, and one adapter each for MSW, TSW and SSW.

Run `python -m backbone.tiny.recipe`; it writes the files that `backbone.load_backbone()` loads. `--out` writes
elsewhere. `--work` names a folder that keeps what each phase makes; a run that was interrupted goes on from there.
`--quick` goes the same way in less than a minute and makes a model that has learned nothing; it needs `--out`.
"""

import argparse
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from backbone.adapter.config import DeltaMemConfig
from backbone.adapter.files import load_adapter, save_adapter
from backbone.adapter.model import MemoryModel, attach_memory
from backbone.tiny.memory_start import whitened_start
from backbone.tiny.memory_training import train_memory
from backbone.tiny.pretrain import PretrainOptions, Report, pretrain
from backbone.tiny.stages import LEARN, POLISH, PRACTISE, REMEMBER, SHARPEN, Stages
from backbone.tiny.tokenizer import train_tokenizer

__all__ = ["FULL", "QUICK", "Recipe", "kept", "main", "run_recipe"]

# The first layer sees tokens without their surroundings: it has nothing to remember them by.
LAYERS = (1, 2, 3)
# A gate of 0.05 at first: at the usual 0.18 the next dozen tokens overwrite a fact, and nothing is learned. For the
# same reason nothing decays by itself here: what is told is replaced by what contradicts it, not by time passing.
GATE_BIAS = -3.0
MESSAGE_GATE_BIAS = 1.0  # one write a message: few enough to begin with open gates
# With states of 8 rows, as published, values are mistaken for one another; 32 rows take most of that away, and two
# states of 64 hold sixteen facts. One gate a state makes a step of training take about half the time.
ADAPTERS = {
    "msw": DeltaMemConfig(
        num_states=2,
        rank=64,
        alpha=64.0,
        target_layers=LAYERS,
        per_row_gates=False,
        beta_bias_init=GATE_BIAS,
        update_mode="no_lambda",
    ),
    "tsw": DeltaMemConfig(
        rank=64,
        alpha=64.0,
        target_layers=LAYERS,
        per_row_gates=False,
        beta_bias_init=GATE_BIAS,
        update_mode="no_lambda",
    ),
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
class Recipe:
    """Set every size of the training: the backbone's phases, then, with the backbone frozen, each adapter's stages.

    backbone: phases, one after the other. branches: phases that all begin where those end; with them, the decoder is
    the mean of where those end and of where the branches end (model soups, arXiv 2203.05482).
    """

    vocab_size: int = 3072
    tokenizer_episodes: int = 6000
    start_conversations: int = 300
    backbone: Sequence[PretrainOptions] = (LEARN, PRACTISE, SHARPEN)
    branches: Sequence[PretrainOptions] = POLISH
    memory: Stages = field(default_factory=lambda: REMEMBER)


FULL = Recipe()
QUICK = Recipe(
    tokenizer_episodes=300,
    start_conversations=30,
    backbone=[replace(phase, steps=4, tokens=768) for phase in FULL.backbone],
    branches=[replace(phase, steps=4, tokens=768) for phase in FULL.branches],
    memory={
        name: tuple(replace(stage, steps=2, stop=None, tokens=512, episodes=2, questions=2) for stage in stages)
        for name, stages in FULL.memory.items()
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


def run_recipe(recipe: Recipe, out: Path, console: Console, work: Path | None = None) -> None:
    """Train everything and write `model/` and `adapters/` under `out`.

    work: folder that keeps what each phase and stage has made; those that are there already are not run again, and the
    result is the same.
    """
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
        model = _backbone(recipe, tokenizer, report, work)
        model.save_pretrained(out / "model")
        for name in recipe.memory:
            frozen = Qwen3ForCausalLM.from_pretrained(out / "model", dtype=torch.float32)
            save_adapter(_adapter(name, frozen, recipe, tokenizer, report, work), out / "adapters" / name)


def _backbone(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, report: Report, work: Path | None
) -> Qwen3ForCausalLM:
    """Take the backbone through its phases, then through its branches, and return the mean of their weights."""
    places = [kept(work, f"backbone-{n}", recipe, recipe.backbone[:n]) for n in range(1, len(recipe.backbone) + 1)]
    done, last = _newest(places)
    model = None if last is None else Qwen3ForCausalLM.from_pretrained(last, dtype=torch.float32)
    for phase in range(done, len(recipe.backbone)):
        model = pretrain(tokenizer, recipe.backbone[phase], report, f"backbone, phase {phase + 1}", model)
        _keep(places[phase], model.save_pretrained)
    if model is None:
        raise ValueError("a recipe needs a phase of the backbone")
    return _mean([model, *(_branch(model, n, recipe, tokenizer, report, work) for n in range(len(recipe.branches)))])


def _branch(
    model: Qwen3ForCausalLM,
    number: int,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    report: Report,
    work: Path | None,
) -> Qwen3ForCausalLM:
    """Return a copy of the backbone that has gone through one of its branches."""
    options = recipe.branches[number]
    place = kept(work, f"branch-{number + 1}", recipe, (recipe.backbone, options))
    if place is not None and place.exists():
        return Qwen3ForCausalLM.from_pretrained(place, dtype=torch.float32)
    branch = pretrain(tokenizer, options, report, f"backbone, branch {number + 1}", deepcopy(model))
    _keep(place, branch.save_pretrained)
    return branch


def _mean(models: Sequence[Qwen3ForCausalLM]) -> Qwen3ForCausalLM:
    """Return a model with the mean of the models' weights."""
    mean = deepcopy(models[0])
    weights = [model.state_dict() for model in models]
    mean.load_state_dict({name: torch.stack([each[name] for each in weights]).mean(0) for name in weights[0]})
    return mean


def _adapter(
    name: str,
    frozen: Qwen3ForCausalLM,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    report: Report,
    work: Path | None,
) -> MemoryModel:
    """Take a new adapter of the frozen backbone through its stages."""
    stages = recipe.memory[name]
    places = [
        kept(work, f"{name}-{n}", recipe, (recipe.backbone, recipe.branches, stages[:n]))
        for n in range(1, len(stages) + 1)
    ]
    done, last = _newest(places)
    if last is not None:
        adapter = load_adapter(frozen, last)
    else:
        adapter = attach_memory(frozen, ADAPTERS[name], seed=1)
        if ADAPTERS[name].granularity == "message":
            whitened_start(adapter, tokenizer, conversations=recipe.start_conversations)
    for stage in range(done, len(stages)):
        train_memory(adapter, tokenizer, stages[stage], report, f"{name}, stage {stage + 1}")
        _keep(places[stage], partial(save_adapter, adapter))
    return adapter


def kept(work: Path | None, name: str, recipe: Recipe, options: object) -> Path | None:
    """Return the folder for what these options make: with others it is another one."""
    if work is None:
        return None
    made_of = repr((recipe.vocab_size, recipe.tokenizer_episodes, recipe.start_conversations, options))
    return work / f"{name}-{sha256(made_of.encode()).hexdigest()[:12]}"


def _newest(places: Sequence[Path | None]) -> tuple[int, Path | None]:
    """Return how many of these are done, by the last that is there, and its folder."""
    there = [(number, place) for number, place in enumerate(places, 1) if place is not None and place.exists()]
    return there[-1] if there else (0, None)


def _keep(place: Path | None, save: Callable[[Path], Any]) -> None:
    """Save to a folder, which is there as a whole or not at all."""
    if place is not None:
        unfinished = place.with_name(f"{place.name}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        save(unfinished)
        unfinished.rename(place)


def main() -> None:
    """Run the recipe from the command line."""
    parser = argparse.ArgumentParser(prog="python -m backbone.tiny.recipe", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="go through every phase in less than a minute")
    parser.add_argument(
        "--out", type=Path, help="folder to write model/ and adapters/ to; the bundled ones if left out"
    )
    parser.add_argument("--work", type=Path, help="folder to keep what each phase makes, to go on from when run again")
    arguments = parser.parse_args()
    if arguments.quick and arguments.out is None:
        parser.error("--quick needs --out: what it makes has learned nothing, and must not replace the bundled model")
    recipe = QUICK if arguments.quick else FULL
    run_recipe(recipe, arguments.out or Path(__file__).parent, Console(), arguments.work)


if __name__ == "__main__":
    main()
