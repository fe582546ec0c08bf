"""Draw the pictures of docs/delta-mem.md from states of the bundled model: `python docs/pictures.py`."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backbone import Backbone, MemoryOutput, MemoryState, load_backbone, render_prompt

TOLD = "We run the tests with make test."
TOLD_AGAIN = "From now on we run the tests with pytest -q."
WORK = "Check this:\ncache: job {n} finished"
OTHER = "Ask Heidi for a review."
TURNS = (
    (TOLD, "Noted: the test command is make test."),
    (WORK.format(n=1), "The log shows no error."),
    (WORK.format(n=2), "The log shows no error."),
    (OTHER, "Noted: the reviewer is Heidi."),
    (TOLD, "Noted: the test command is make test."),
    (TOLD_AGAIN, "Noted: the test command is pytest -q."),
)
LABELS = ("test command", "work", "work", "reviewer", "test command again", "test command changed")
LABELS_AT = range(len(LABELS))


class Reading(NamedTuple):
    """Hold what a pass over some turns returned, its tokens, and the span of each message."""

    out: MemoryOutput
    tokens: list[str]
    spans: tuple[tuple[int, int], ...]


def read(backbone: Backbone, turns: int, *, each_token: bool = False) -> Reading:
    """Read the first turns in one pass; telemetry is by message, or by token."""
    roles = ("user", "assistant")
    said = [pair for turn in TURNS[:turns] for pair in zip(roles, turn, strict=True)]
    messages = [{"role": role, "content": text} for role, text in said]
    rendered = render_prompt(backbone.tokenizer, messages, add_generation_prompt=False)
    ids = list(rendered.ids)
    segments = list(range(len(ids)))
    if not each_token:
        segments = [-1] * len(ids)
        for number, (start, end) in enumerate(rendered.spans):
            segments[start:end] = [number] * (end - start)
    with torch.no_grad():
        out = backbone.model(torch.tensor([ids]), segment_ids=torch.tensor([segments]), telemetry=True)
    return Reading(out, [str(backbone.tokenizer.decode([token])) for token in ids], rendered.spans)


def draw_states(backbone: Backbone) -> Figure:
    """Show every state of every layer, empty, after one fact, after work, and after the fact has changed."""
    moments = {"one fact": 1, "… and work": 3, "… and another fact": 4, "… and the first one changed": 6}
    states = [read(backbone, turns).out.memory for turns in moments.values()]
    layers = list(states[0].layers)
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    grid = figure.subplots(len(layers), len(moments))
    for row, name in enumerate(layers):
        for axes, state, moment in zip(grid[row], states, moments, strict=True):
            image = draw_state(axes, state, name)
            axes.set_title(moment if row == 0 else "")
        grid[row][0].set_ylabel(f"layer {name.split('.')[2]}")
    figure.colorbar(image, ax=grid)
    rank = states[0].layers[layers[0]].shape[-1]
    figure.suptitle(f"S after one pass: the states of a layer side by side, {rank} × {rank} each")
    return figure


def draw_state(axes: Axes, state: MemoryState, layer: str) -> Any:
    """Draw the states of one layer beside each other."""
    matrices = torch.cat(list(state.layers[layer][0]), dim=1)
    axes.set(xticks=[], yticks=[])
    return axes.imshow(matrices.numpy(), cmap="RdBu", vmin=-3, vmax=3, interpolation="nearest")


def draw_gates(backbone: Backbone) -> Figure:
    """Show how far each token of two turns opens the write gate, mean over layers."""
    reading = read(backbone, 2, each_token=True)
    layers = reading.out.telemetry.layers.values() if reading.out.telemetry else ()
    gates = torch.stack([layer.write_gate[0] for layer in layers]).mean(0)
    figure = Figure(figsize=(14, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(gates)), gates.tolist())
    axes.set_xticks(range(len(gates)), [token.replace("\n", "⏎") for token in reading.tokens], rotation=90, fontsize=8)
    axes.set(ylabel="write gate β, mean of layers", xlim=(-1, len(gates)), title="Where the memory writes")
    return figure


def draw_surprise(backbone: Backbone) -> Figure:
    """Show surprise and write gate of what the user says, turn by turn, and the norm of the state after it."""
    out = read(backbone, len(TURNS)).out
    layers = list(out.telemetry.layers.items()) if out.telemetry else []
    figure = Figure(figsize=(14, 3.8), layout="constrained")
    surprise, gate, norm = figure.subplots(1, 3)
    for name, layer in layers:
        label = f"layer {name.split('.')[2]}"
        said = slice(0, None, 2)  # every second message is the user's
        surprise.plot(LABELS_AT, layer.surprise[0, said].tolist(), "o-", label=label)
        gate.plot(LABELS_AT, layer.write_gate[0, said].tolist(), "o-", label=label)
        norm.plot(LABELS_AT, layer.norm[0, said].tolist(), "o-", label=label)
    surprise.set(title="surprise ‖v - S k‖ / ‖v‖")
    gate.set(title="write gate β")
    norm.set(title="norm of S afterwards", ylim=(0, None))
    for axes in (surprise, gate, norm):
        axes.set_xticks(LABELS_AT, LABELS, rotation=30, ha="right")
    norm.legend()
    return figure


def main(folder: Path) -> None:
    """Draw every picture into a folder."""
    folder.mkdir(exist_ok=True)
    backbone = load_backbone()
    for name, draw in (("states", draw_states), ("gates", draw_gates), ("surprise", draw_surprise)):
        draw(backbone).savefig(folder / f"{name}.png", dpi=90)


if __name__ == "__main__":
    main(Path(__file__).parent / "pictures")
