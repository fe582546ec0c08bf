"""Read and write one token in machine code, one call a steered projection."""

from array import array
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from backbone.adapter.call import MemoryCall, ran_early, ran_twice
from backbone.adapter.config import Head
from backbone.adapter.joint import Joined
from backbone.adapter.layer import NORM_EPS, LayerMemory
from backbone.adapter.state import MemoryState
from backbone.ops.delta_rule import NativeStep, Row, StepShape, native_step

# Products of a layer's projections, over a batch; with more of them, torch's threads gain what its calls cost.
MOST_PRODUCTS = 2**18


class NativeToken:
    """Stand for a call whose one token every layer reads and writes in machine code, where `of` gives one.

    It does what LayerMemory does, which is the definition. `tokens`: the input of each layer that has run, by name.
    """

    def __init__(
        self,
        call: MemoryCall,
        layers: Sequence[LayerMemory],
        joined: Sequence[Joined],
        shape: StepShape,
        step: NativeStep,
    ) -> None:
        like, states = layers[0], call.memory.layers
        batch, count, width = len(states[like.name]), len(layers), shape.heads * shape.rank
        self.tokens: dict[str, Tensor] = {}
        self._call, self._names, self._run = call, [layer.name for layer in layers], step.run
        self._done: set[tuple[str, Head]] = set()
        self._batch, self._hidden = batch, shape.hidden
        self._after = _new(count, batch, shape.heads, shape.rank, shape.rank)
        self._reads = _new(count, batch, width)
        masks = [None if mask is None else mask.contiguous() for mask in (call.valid, call.write)]
        scratch = _new(shape.projected)
        self._held: list[Tensor | None] = [*masks, scratch]  # of which the code has only addresses
        after, reads = self._after.data_ptr(), self._reads.data_ptr()
        ends = (scratch.data_ptr(), *(0 if mask is None else mask.data_ptr() for mask in masks), batch)
        rows: list[int] = []
        self._weights: dict[tuple[str, Head], tuple[int, int]] = {}
        for layer, (weight, bias) in zip(layers, joined, strict=True):
            state = states[layer.name].contiguous()
            self._held += (weight, bias, state)
            rows += Row(weight.data_ptr(), bias.data_ptr(), state.data_ptr(), after, reads, *ends)
            after += state.numel() * 4
            reads += batch * width * 4
            for head in layer.plain_heads:
                steering = layer.steering_weight(head)
                if _plain(steering, steering.numel()):
                    self._weights[layer.name, head] = (steering.data_ptr(), len(steering))
        self._rows = array("q", rows)
        first, size = self._rows.buffer_info()[0], 8 * len(Row._fields)
        self._at = {name: first + index * size for index, name in enumerate(self._names)}

    @classmethod
    def of(cls, call: MemoryCall, layers: Sequence[LayerMemory]) -> Self | None:
        """Give what stands for a call that OneToken would suit; None where machine code does not suit it."""
        like, states = layers[0], call.memory.layers
        shape = _shape(like)
        if call.message is not None or torch.compiler.is_compiling():
            return None
        if len(states[like.name]) * shape.projected * shape.hidden > MOST_PRODUCTS:
            return None
        joined = [layer.joined() for layer in layers]
        for layer, (weight, bias) in zip(layers, joined, strict=True):
            known = _suits(states[layer.name]) and _suits(weight) and _suits(bias)
            if not known or layer.hidden != shape.hidden:
                return None
        step = native_step(shape)
        return None if step is None else cls(call, layers, joined, shape, step)

    def steer(self, memory: LayerMemory, head: Head, x: Tensor | None, out: Tensor) -> Tensor:
        """Do what `LayerMemory.steer` does."""
        name, token = memory.name, 0
        key = (name, head)
        if key in self._done:
            raise ran_twice(name, head)
        self._done.add(key)
        if self._call.telemetry is not None:
            # The general way measures, on a copy: a token that is measured has the bits of one that is not.
            memory.steer(self._call, head, x, out.clone())
        if name not in self.tokens:
            if x is None:
                raise ran_early(name)
            if not _plain(x, self._batch * self._hidden):
                x = x.to("cpu", torch.float32).reshape(self._batch, self._hidden).contiguous()
            self.tokens[name], token = x, x.data_ptr()
        weight, width = self._weights.get(key, (0, 0))
        if width and _plain(out, self._batch * width):
            self._run(self._at[name], token, weight, out.data_ptr(), width)
            return out
        if token:
            self._run(self._at[name], token, 0, 0, 0)
        return memory.add(head, self._reads[self._names.index(name)], out)

    def written(self) -> MemoryState:
        """Give the memory after the token, once all layers have run."""
        return MemoryState(dict(zip(self._names, self._after.unbind(0), strict=True)), self._call.memory.fingerprint)


def _shape(like: LayerMemory) -> StepShape:
    config = like.config  # which layers share
    return StepShape(
        hidden=like.hidden, heads=config.num_states, rank=config.rank, mode=config.update_mode,
        own_decay=config.has_decay_gate, per_row=config.per_row_gates, unit=config.normalize_qk, eps=NORM_EPS,
        scale=like.plain_scale,
    )  # fmt: skip


def _new(*shape: int) -> Tensor:
    # Whatever a program has set as the default.
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def _plain(tensor: Tensor, size: int) -> bool:
    """Tell whether a tensor is `size` float32 numbers in a row in the computer's memory."""
    return _suits(tensor) and tensor.is_contiguous() and tensor.numel() == size


def _suits(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.is_cpu
