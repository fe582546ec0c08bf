"""Read one token with as few operations as that takes: beside a small model, their number is what a memory costs."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from backbone.adapter.call import MemoryCall, ran_early, ran_twice
from backbone.adapter.config import Head
from backbone.adapter.layer import NORM_EPS, LayerMemory
from backbone.adapter.native_token import NativeToken
from backbone.adapter.state import MemoryState
from backbone.adapter.step import write_step


class _Layer(NamedTuple):
    """Hold what a token is read with: rows [P, d], their biases, and states [B·H, r, r], or [r, r] of one."""

    weight: Tensor
    bias: Tensor | None
    state: Tensor


def one_token(call: MemoryCall, layers: Sequence[LayerMemory]) -> "OneToken | NativeToken | None":
    """Give what is to stand for a call of one token, if that is to be read and written by a short way."""
    if not OneToken.suits(call, layers[0]):
        return None
    native = NativeToken.of(call, layers)
    # Where tokens are measured the general way does that, with the same bits as this one's.
    return native if native is not None or call.telemetry is not None else OneToken(call, layers)


class OneToken:
    """Stand for a call whose one token is to be read by every layer before it is written, where `suits` says so.

    It does what LayerMemory does, which is the definition. What can be got ready is got ready for all layers in one go
    before the pass, since code that was used a moment ago is still in the processor's caches. `tokens`: what
    `write_step` needs of each layer that has run, by name.
    """

    def __init__(self, call: MemoryCall, layers: Sequence[LayerMemory]) -> None:
        states = call.memory.layers if call.message is None else call.message.before
        config, like = layers[0].config, states[layers[0].name]
        self.tokens: dict[str, Tensor] = {}
        self._call, self._memories = call, layers
        self._reads: dict[str, Tensor] = {}
        self._done: set[tuple[str, Head]] = set()
        self._valid, self._whole = call.valid, call.message is None
        self._batch, self._heads, self._rank = len(like), config.num_states, config.rank
        self._width, self._unit = config.num_states * config.rank, config.normalize_qk
        self._scale = layers[0].plain_scale
        single = self._batch * self._heads == 1
        self._layers: dict[str, _Layer] = {}
        for layer in layers:
            weight, bias = layer.joined()
            state, rank = states[layer.name], self._rank
            self._layers[layer.name] = _Layer(
                weight=weight if self._whole else weight[: self._width],
                bias=bias if self._whole else None,
                state=state.view(rank, rank) if single else state.reshape(-1, rank, rank),
            )
        self._steering = {
            (layer.name, head): layer.steering_weight(head).t() for layer in layers for head in layer.plain_heads
        }

    @staticmethod
    def suits(call: MemoryCall, like: LayerMemory) -> bool:
        """Tell whether a call is of this kind; `like`: any of the layers."""
        if not call.one_step or torch.is_grad_enabled():
            return False
        state = call.memory.layers[like.name]
        return not torch.is_autocast_enabled(state.device.type) and not like.fuses(call, state)

    def steer(self, memory: LayerMemory, head: Head, x: Tensor | None, out: Tensor) -> Tensor:
        """Do what `LayerMemory.steer` does."""
        key = (memory.name, head)
        if key in self._done:
            raise ran_twice(*key)
        self._done.add(key)
        reads = self._reads.get(memory.name)
        if reads is None:
            if x is None:
                raise ran_early(memory.name)
            reads = self._reads[memory.name] = self._read(memory.name, x)
        weight = self._steering.get(key)
        if weight is None or out.dtype != torch.float32 or not out.is_contiguous():
            return memory.add(head, reads, out)
        out.squeeze(1).addmm_(reads, weight, alpha=self._scale)
        return out

    def written(self) -> MemoryState:
        """Give the memory after the token, once all layers have run."""
        return write_step(self._call, self._memories, [self.tokens[layer.name] for layer in self._memories])

    def _read(self, name: str, x: Tensor) -> Tensor:
        """Read a layer's state with the token's query; gives [B, H·r]."""
        weight, bias, state = self._layers[name]
        rows = x.squeeze(1)
        if rows.dtype != torch.float32:
            rows = rows.float()
        if bias is None:
            self.tokens[name] = rows
            q = linear(rows, weight)
        else:
            self.tokens[name] = projected = linear(rows, weight, bias)
            q = projected.narrow(1, 0, self._width)
        if self._unit:
            q = q.tanh()
            if self._heads > 1:
                q = q.view(self._batch, self._heads, self._rank)
            q = q.div_(torch.linalg.vector_norm(q, dim=-1, keepdim=True).clamp_min_(NORM_EPS))
        if state.dim() == 2:
            reads = linear(q, state)
        else:
            reads = torch.bmm(state, q.reshape(-1, self._rank, 1)).view(self._batch, -1)
        return reads if self._valid is None else reads.where(self._valid, 0.0)
