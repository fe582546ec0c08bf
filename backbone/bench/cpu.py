"""Measure the ratios of the case "bench-512" on one CPU thread."""

import subprocess
import sys
from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor
from transformers import PreTrainedModel

from backbone.bench.case import ADAPTERS, Scale, frozen_backbone, random_ids, with_memory
from backbone.bench.timing import median_ratios, take_turns

__all__ = ["FULL", "QUICK", "RATIOS", "TARGETS", "measure_ratios"]

# What each ratio is to stay under on a quiet machine; the naive scan is shown beside ours.
TARGETS: dict[str, float | None] = {
    "prefill_tsw": 1.04, "prefill_msw": 1.08, "prefill_ssw": 1.03, "prefill_naive": None, "decode_b1": 1.08,
    "decode_b8": 1.06, "peak_memory": 1.02, "train_step": 1.5,
}  # fmt: skip
RATIOS = tuple(TARGETS)
FULL = Scale(prefill=4096, context=1024, decode=256, peak=8192, train=1024, rounds=7)
QUICK = Scale(prefill=64, context=16, decode=8, peak=64, train=16, rounds=1)
_MESSAGE = 128  # tokens of a message, for the adapter that writes messages


def measure_ratios(scale: Scale, names: Collection[str] = RATIOS) -> dict[str, float]:
    """Return the cost with memory over the frozen backbone's, for each of `names`, in the order of `RATIOS`.

    torch is set to one thread, and back to what it was.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ratios = dict(_measure(scale, names, frozen_backbone()))
    finally:
        torch.set_num_threads(threads)
    return {name: ratios[name] for name in RATIOS if name in ratios}


def _measure(scale: Scale, names: Collection[str], frozen: PreTrainedModel) -> Iterator[tuple[str, float]]:
    prefills = [name for name in RATIOS if name.startswith("prefill_") and name in names]
    if prefills:
        yield from _prefill(scale, prefills, frozen).items()
    if "decode_b1" in names:
        yield "decode_b1", _decode(scale, 1, frozen)
    if "decode_b8" in names:
        yield "decode_b8", _decode(scale, 8, frozen)
    if "peak_memory" in names:
        yield "peak_memory", _peak(scale)
    if "train_step" in names:
        yield "train_step", _train(scale, frozen)


@torch.no_grad()
def _prefill(scale: Scale, names: list[str], frozen: PreTrainedModel) -> dict[str, float]:
    """Compare one pass over a prompt, logits of the last position only."""
    ids = random_ids(1, scale.prefill)

    def run(name: str) -> Callable[[], object]:
        kind = name.removeprefix("prefill_")
        model = with_memory(frozen, ADAPTERS["tsw" if kind == "naive" else kind])
        if kind == "naive":
            for layer in model.layers:
                layer.form = "naive"
        messages = torch.arange(scale.prefill)[None] // _MESSAGE if kind == "ssw" else None
        return lambda: model(ids, segment_ids=messages, logits_to_keep=1)

    calls: dict[str, Callable[[], object]] = {"frozen": lambda: frozen(input_ids=ids, logits_to_keep=1)}
    return median_ratios(take_turns(calls | {name: run(name) for name in names}, scale.rounds), "frozen")


@torch.no_grad()
def _decode(scale: Scale, batch: int, frozen: PreTrainedModel) -> float:
    """Compare single steps after a prompt, the tokens being given; the two models take turns with each token."""
    prompt, following = random_ids(batch, scale.context), random_ids(batch, scale.decode)
    model = with_memory(frozen, ADAPTERS["tsw"])
    steps = torch.split(following, 1, dim=1)

    def frozen_steps() -> Iterator[None]:
        past = frozen(input_ids=prompt, logits_to_keep=1).past_key_values
        for step in [steps[0], *steps]:
            past = frozen(input_ids=step, past_key_values=past).past_key_values
            yield

    def memory_steps() -> Iterator[None]:
        out = model(prompt, logits_to_keep=1)
        for step in [steps[0], *steps]:
            out = model(step, past_key_values=out.past_key_values, memory=out.memory)
            yield

    first, second = frozen_steps(), memory_steps()
    seconds = take_turns({"frozen": lambda: next(first), "memory": lambda: next(second)}, len(steps))
    return median_ratios(seconds, "frozen")["memory"]


def _peak(scale: Scale) -> float:
    """Compare the peak memory of two processes that each make the model and read one prompt."""

    def peak(kind: str) -> int:
        command = [sys.executable, "-m", "backbone.bench.peak", kind, str(scale.peak)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    return peak("memory") / peak("frozen")


def _train(scale: Scale, frozen: PreTrainedModel) -> float:
    """Compare forward and backward: into the embeddings, for the frozen backbone, and into the adapter's weights."""
    ids = random_ids(1, scale.train)
    model = with_memory(frozen, ADAPTERS["tsw"])

    def backward(logits: Tensor) -> None:
        torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()  # type: ignore[no-untyped-call]

    def frozen_step() -> None:
        embeddings: Tensor = frozen.get_input_embeddings()(ids)
        backward(frozen(inputs_embeds=embeddings.requires_grad_(), use_cache=False).logits)

    def memory_step() -> None:
        backward(model(ids, use_cache=False).logits)
        model.zero_grad()

    return median_ratios(take_turns({"frozen": frozen_step, "memory": memory_step}, scale.rounds), "frozen")["memory"]
