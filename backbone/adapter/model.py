"""Run a frozen decoder with a working memory that comes in and goes out as a value."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from backbone.adapter.architectures import attention_sites, build_layer, refuse_checkpointing, wrap_projections
from backbone.adapter.call import CURRENT_CALL, MemoryCall, state_at
from backbone.adapter.config import DeltaMemConfig
from backbone.adapter.fingerprint import fingerprint_of
from backbone.adapter.initial import initialise
from backbone.adapter.inputs import matching, prepare_call, prepare_positions
from backbone.adapter.layer import LayerMemory
from backbone.adapter.one_token import one_token
from backbone.adapter.state import MemoryState
from backbone.adapter.step import write_step
from backbone.adapter.telemetry import Telemetry
from backbone.errors import UnsupportedModelError


class MemoryOutput(NamedTuple):
    """Hold a pass's logits [B, T or n, V], key-value cache, memory after it, and the memory at the asked positions.

    `telemetry` is None unless it was asked for.
    """

    logits: Tensor
    past_key_values: Cache | None
    memory: MemoryState
    memory_at: list[MemoryState]
    telemetry: Telemetry | None


class HiddenOutput(NamedTuple):
    """Hold what MemoryOutput holds, with the last hidden states [B, T, d] in place of logits."""

    hidden: Tensor
    past_key_values: Cache | None
    memory: MemoryState
    memory_at: list[MemoryState]
    telemetry: Telemetry | None


class MemoryModel(nn.Module):
    """Join a frozen decoder and an adapter; made by `attach_memory` and `load_adapter`.

    `backbone` is the decoder, its projections wrapped; called by itself it is the frozen model. `memory_layers` holds
    the adapter's weights, the only trainable ones. A pass changes nothing on the model, so threads can share it.
    """

    def __init__(self, backbone: PreTrainedModel, config: DeltaMemConfig, layers: Sequence[LayerMemory]) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.memory_layers = nn.ModuleList(layers)
        self._fingerprint: str | None = None
        self._names = tuple(layer.name for layer in layers)

    @property
    def layers(self) -> list[LayerMemory]:
        """Give the memories of the attention layers, in order."""
        return [layer for layer in self.memory_layers if isinstance(layer, LayerMemory)]

    @property
    def fingerprint(self) -> str:
        """Identify adapter and backbone (hex sha256); a state works with one fingerprint only.

        Kept until `refresh_fingerprint`, so training does not pay for it every step.
        """
        return self._fingerprint or self.refresh_fingerprint()

    def refresh_fingerprint(self) -> str:
        """Compute the fingerprint anew; call it after the adapter's weights have changed."""
        self._fingerprint = fingerprint_of(self.backbone, self.config, self.adapter_tensors())
        return self._fingerprint

    def adapter_tensors(self) -> dict[str, Tensor]:
        """Give the adapter's weights by their published names, `<attention module>.<parameter>`."""
        return {f"{layer.name}.{name}": p.detach() for layer in self.layers for name, p in layer.named_parameters()}

    def empty_memory(self, batch_size: int = 1) -> MemoryState:
        """Give the memory of conversations in which nothing has been said."""
        shapes = dict.fromkeys(self._names, (self.config.num_states, self.config.rank))
        return MemoryState.zeros(shapes, self.fingerprint, batch_size, self.layers[0].beta_bias.device)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        memory: MemoryState | None = None,
        write_mask: Tensor | bool | None = None,
        segment_ids: Tensor | None = None,
        *,
        logits_to_keep: int = 0,
        use_cache: bool = True,
        state_positions: Tensor | Sequence[int] | None = None,
        telemetry: bool = False,
    ) -> MemoryOutput:
        """Read and write the memory along a batch of tokens, and give logits and the new memory.

        Shapes: input_ids [B, T]; attention_mask [B, past + T], 1 is real (None: all); write_mask [B, T] bool (None or
        True: all; False: none); segment_ids [B, T] int, the message or sentence of each token, -1 is not written
        (needed by adapters that write these, unless nothing is written); memory None is empty; state_positions [P] or
        [B, P]: counts of tokens (columns) of this call, whose memory is given in memory_at. logits_to_keep: the last n
        tokens' logits only, 0 is all. telemetry: measure surprise, write gate, correction and norm by message and layer
        (see Telemetry); any adapter then takes segment_ids, and tokens of id -1 are not measured.
        Raises StateMismatchError for a memory of another adapter, backbone or batch size, ValueError for bad shapes,
        ConfigError for gradients through a backbone that is set to gradient checkpointing.
        """

        def run(**inputs: Any) -> tuple[Tensor, Cache | None]:
            out = self.backbone(**inputs, logits_to_keep=logits_to_keep)
            return out.logits, out.past_key_values

        given = (input_ids, attention_mask, position_ids, past_key_values, memory, write_mask, segment_ids)
        return MemoryOutput(*self._pass(run, *given, use_cache, state_positions, telemetry))

    def hidden_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        memory: MemoryState | None = None,
        write_mask: Tensor | bool | None = None,
        segment_ids: Tensor | None = None,
        *,
        use_cache: bool = True,
        state_positions: Tensor | Sequence[int] | None = None,
        telemetry: bool = False,
    ) -> HiddenOutput:
        """Do what `forward` does up to the last hidden states: for callers that want few logits or none."""
        decoder: nn.Module = self.backbone.get_decoder()  # type: ignore[no-untyped-call]

        def run(**inputs: Any) -> tuple[Tensor, Cache | None]:
            out = decoder(**inputs)
            return out.last_hidden_state, out.past_key_values

        given = (input_ids, attention_mask, position_ids, past_key_values, memory, write_mask, segment_ids)
        return HiddenOutput(*self._pass(run, *given, use_cache, state_positions, telemetry))

    def _pass(
        self,
        run: Callable[..., tuple[Tensor, Cache | None]],
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        past: Cache | None,
        memory: MemoryState | None,
        write_mask: Tensor | bool | None,
        segment_ids: Tensor | None,
        use_cache: bool,
        state_positions: Tensor | Sequence[int] | None,
        telemetry: bool,
    ) -> tuple[Tensor, Cache | None, MemoryState, list[MemoryState], Telemetry | None]:
        refuse_checkpointing(self.backbone)
        started = self._starting_memory(memory, input_ids)
        call = prepare_call(
            self.config, started, input_ids, attention_mask, write_mask, segment_ids, state_positions, telemetry
        )
        layers = self.layers
        one = one_token(call, layers)
        token = CURRENT_CALL.set(one or call)
        try:
            out, cache = run(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=prepare_positions(input_ids, attention_mask, position_ids),
                past_key_values=past,
                use_cache=use_cache,
            )
        finally:
            CURRENT_CALL.reset(token)
        if one is not None:
            for name in self._names:
                self._found(one.tokens, name)
            measured = None if call.telemetry is None else self._after(call, layers)[2]
            return out, cache, one.written(), [], measured
        return (out, cache, *self._after(call, layers))

    def _after(
        self, call: MemoryCall, layers: Sequence[LayerMemory]
    ) -> tuple[MemoryState, list[MemoryState], Telemetry | None]:
        """Return the memory after a pass, those at the positions that were asked for, and what was measured."""
        results = {name: self._found(call.results, name) for name in self._names}
        recorder = call.telemetry
        to_write = [result.to_write for result in results.values() if result.to_write is not None]
        if to_write:
            after = write_step(call, layers, to_write)
            return after, [], None if recorder is None else recorder.finish(after, results)
        first = 0 if recorder is None else recorder.positions
        states = [state_at(call, results, index) for index in range(first, call.positions.shape[1])]
        return states[-1], states[:-1], None if recorder is None else recorder.finish(states[-1], results)

    def _starting_memory(self, memory: MemoryState | None, input_ids: Tensor) -> MemoryState:
        if input_ids.dim() != 2 or 0 in input_ids.shape:
            raise ValueError(f"input_ids must be [B, T] with at least one token, got {list(input_ids.shape)}")
        if memory is None:
            return self.empty_memory(len(input_ids)).to(input_ids.device)
        shape = (len(input_ids), self.config.num_states, self.config.rank, self.config.rank)
        memory = matching(memory, self.fingerprint, self._names, shape)
        return memory if memory.layers[self._names[0]].device == input_ids.device else memory.to(input_ids.device)

    def _found(self, results: Mapping[str, Any], name: str) -> Any:
        if name not in results:
            raise UnsupportedModelError(f"{type(self.backbone).__name__} did not run {name}.q_proj in this pass")
        return results[name]


def attach_memory(model: PreTrainedModel, config: DeltaMemConfig, *, seed: int | None = None) -> MemoryModel:
    """Freeze a decoder and attach a new memory to its attention layers, in place.

    `seed` draws the new weights from a generator of their own; None uses torch's global one.
    Raises UnsupportedModelError if the decoder has no place for it, AdapterError if it carries a memory already.
    """

    def draw(layers: Sequence[LayerMemory]) -> None:
        generator = None if seed is None else torch.Generator(layers[0].beta_bias.device).manual_seed(seed)
        for layer in layers:
            initialise(layer, generator)

    return attach_filled(model, config, draw)


def attach_filled(
    model: PreTrainedModel, config: DeltaMemConfig, fill: Callable[[Sequence[LayerMemory]], None]
) -> MemoryModel:
    """Attach memories whose weights `fill` sets; the decoder is touched only after `fill` has succeeded."""
    sites = attention_sites(model, config)
    layers = [build_layer(site, config) for site in sites]
    fill(layers)
    model.requires_grad_(False)
    for site, layer in zip(sites, layers, strict=True):
        wrap_projections(site, layer)
    return MemoryModel(model, config, layers)
