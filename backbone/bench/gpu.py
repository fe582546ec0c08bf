"""Measure Qwen3-4B's shape, random bfloat16 weights, on a GPU: prefill, decoding with and without graphs, memory."""

import gc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM, StaticCache

from backbone.adapter.model import MemoryModel
from backbone.adapter.state import MemoryState
from backbone.bench.case import ADAPTERS, random_ids, with_memory
from backbone.bench.timing import median_ratios, synchronised, take_turns
from backbone.errors import ConfigError

__all__ = ["TARGETS", "GpuScale", "captured", "measure_gpu", "measure_prompt", "require_gpu"]

# Decoding is a share of the frozen backbone's tokens per second, the others are costs over the frozen backbone's.
TARGETS = {"prefill": 1.03, "decode": 0.95, "decode_graphs": 0.95, "memory": 1.01}
QWEN3_4B: dict[str, Any] = {
    "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}  # fmt: skip
_WARM_UP = 3  # steps before a graph is captured, as torch asks for


class GpuScale(NamedTuple):
    """Set how much is measured: prompt lengths, decoded tokens, rounds of which the median is taken."""

    prompts: tuple[int, ...] = (1024, 8192, 32768)
    steps: int = 128
    rounds: int = 5


def require_gpu() -> torch.device:
    """Give the GPU; raises ConfigError where there is none."""
    if not torch.cuda.is_available():
        raise ConfigError("no GPU is here (torch.cuda.is_available() is False); nothing was measured")
    return torch.device("cuda")


def measure_gpu(scale: GpuScale | None = None) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield each prompt length with its ratios as they come; raises ConfigError where there is no GPU."""
    scale, device = scale or GpuScale(), require_gpu()
    frozen = random_backbone(QWEN3_4B, device)
    for tokens in scale.prompts:
        yield tokens, measure_prompt(frozen, tokens, scale.steps, scale.rounds)


def random_backbone(shape: dict[str, Any], device: torch.device) -> PreTrainedModel:
    """Make a Qwen3 with random bfloat16 weights, on the device."""
    with device:
        model = Qwen3ForCausalLM._from_config(Qwen3Config(**shape), dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    frozen: PreTrainedModel = model.eval().requires_grad_(False)
    return frozen


@torch.no_grad()
def measure_prompt(frozen: PreTrainedModel, tokens: int, steps: int, rounds: int) -> dict[str, float]:
    """Return the ratios for one prompt length; graphs and memory are measured on a GPU only."""
    vocabulary, on_gpu = int(frozen.config.vocab_size), frozen.device.type == "cuda"
    prompt = random_ids(1, tokens, vocabulary).to(str(frozen.device))
    following = list(torch.split(random_ids(1, steps, vocabulary).to(str(frozen.device)), 1, dim=1))

    def compare(first: Callable[[], object], second: Callable[[], object]) -> float:
        seconds = take_turns({"frozen": first, "memory": second}, rounds, clock=synchronised)
        return median_ratios(seconds, "frozen")["memory"]

    def frozen_prefill() -> object:
        return frozen(input_ids=prompt, logits_to_keep=1)

    def memory_prefill() -> object:
        return model(prompt, logits_to_keep=1)

    ratios: dict[str, float] = {}
    # The peaks come first, the frozen one before there is an adapter: whatever else lay there would count as theirs.
    frozen_peak = _peak(frozen_prefill) if on_gpu else 0
    model = with_memory(frozen, ADAPTERS["tsw"])
    if on_gpu:
        ratios["memory"] = _peak(memory_prefill) / frozen_peak
    ratios["prefill"] = compare(frozen_prefill, memory_prefill)
    ratios["decode"] = 1 / compare(*_bursts(frozen, model, prompt, following))
    if on_gpu:
        room = (rounds + 2) * steps
        frozen_graph, memory_graph = (
            captured(one, steps) for one in (_frozen_step(frozen, prompt, room), _memory_step(model, prompt, room))
        )
        ratios["decode_graphs"] = 1 / compare(frozen_graph, memory_graph)
    return ratios


def _bursts(
    frozen: PreTrainedModel, model: MemoryModel, prompt: Tensor, following: list[Tensor]
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Give what decodes a burst without memory and with it; the two caches of the prompt live as long as these."""
    without, with_it = _frozen_steps(frozen, prompt, following), _memory_steps(model, prompt, following)
    return lambda: next(without), lambda: next(with_it)


def _peak(run: Callable[[], object]) -> int:
    run()  # what a first run leaves behind, such as the workspaces of matrix products, is not the prompt's
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated()


def _frozen_steps(frozen: PreTrainedModel, prompt: Tensor, following: list[Tensor]) -> Iterator[None]:
    """Decode the same number of tokens again and again, each time from the same cache."""
    past = frozen(input_ids=prompt, logits_to_keep=1).past_key_values
    while True:
        for ids in following:
            past = frozen(input_ids=ids, past_key_values=past).past_key_values
        past.crop(-len(following))
        yield


def _memory_steps(model: MemoryModel, prompt: Tensor, following: list[Tensor]) -> Iterator[None]:
    first = model(prompt, logits_to_keep=1)
    past: Any = first.past_key_values
    while True:
        memory = first.memory
        for ids in following:
            _, past, memory, *_ = model(ids, past_key_values=past, memory=memory)
        past.crop(-len(following))
        yield


def _frozen_step(frozen: PreTrainedModel, prompt: Tensor, room: int) -> Callable[[], None]:
    past, ids = StaticCache(config=frozen.config, max_cache_len=prompt.shape[1] + room), prompt[:, :1].clone()
    frozen(input_ids=prompt, past_key_values=past, logits_to_keep=1)

    def step() -> None:
        frozen(input_ids=ids, past_key_values=past)

    return step


def _memory_step(model: MemoryModel, prompt: Tensor, room: int) -> Callable[[], None]:
    past, ids = StaticCache(config=model.backbone.config, max_cache_len=prompt.shape[1] + room), prompt[:, :1].clone()
    memory: MemoryState = model(prompt, past_key_values=past, logits_to_keep=1).memory

    def step() -> None:
        after = model(ids, past_key_values=past, memory=memory).memory
        # A graph reads and writes fixed places, so the memory goes back to where it came from.
        for name, tensor in memory.layers.items():
            tensor.copy_(after.layers[name])

    return step


def captured(step: Callable[[], None], steps: int) -> Callable[[], None]:
    """Capture a step as a CUDA graph, and give a call that replays it `steps` times."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    kept = graph, step  # a graph works on the tensors of its step, and does not keep them alive

    def replay() -> None:
        for _ in range(steps):
            kept[0].replay()

    return replay
