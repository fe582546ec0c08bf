"""Hold one attention layer's memory: its weights, what it reads and writes, and the wrappers that let it steer."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, rms_norm

from backbone.adapter.call import CURRENT_CALL, LayerResult, MemoryCall, SegmentPlan
from backbone.adapter.config import HEADS, DeltaMemConfig, Head
from backbone.errors import UnsupportedModelError
from backbone.ops.delta_rule import delta_rule, segment_delta_rule

NORM_EPS = 1e-6  # of the published code, for q and k
STEER_INIT_STD = 0.02
COPY_INIT_SCALE = 2.0


class LayerMemory(nn.Module):
    """Read and write one layer's states, and turn reads into what is added to the layer's projections.

    Parameters carry the published names and shapes; they are float32 whatever the backbone's dtype. `hidden`: width of
    the attention layer's input. `widths`: output width of each steered projection.
    """

    def __init__(
        self,
        name: str,
        config: DeltaMemConfig,
        hidden: int,
        widths: dict[Head, int],
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.name, self.config, self.hidden = name, config, hidden
        states = config.num_states * config.rank
        gates = states if config.per_row_gates else config.num_states

        def new(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device, dtype=torch.float32))

        self.memory_q_proj = new(states, hidden)
        self.memory_k_proj = new(states, hidden)
        self.memory_v_proj = new(states, hidden)
        self.beta_proj = new(gates, hidden)
        self.beta_bias = new(gates)
        if config.has_decay_gate:
            self.lambda_proj = new(gates, hidden)
            self.lambda_bias = new(gates)
        for head in config.delta_heads:
            self.register_parameter(f"delta_{head}_proj", new(widths[head], states))
        if config.delta_o_rmsnorm:
            self.delta_o_rmsnorm_weight = new(widths["o"])
        if config.delta_scale != "fixed":
            # One a head whether it is steered or not, as the published code has it.
            self.delta_scale_raw = new(len(HEADS) if config.delta_scale == "head" else 1)

    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights: every gate is at its bias, keys match queries, and a read leans towards what was written.

        Keys begin with the queries' weights and the o head with the transposed value weights, so a token that resembles
        a written one is given back what followed from it, coarsely. From random weights the memory is of no use at
        first, and its gates close before it is.
        """
        for name, parameter in self.named_parameters():
            if name.startswith("memory_"):
                nn.init.normal_(parameter, std=1 / math.sqrt(self.hidden), generator=generator)
            elif name.startswith("delta_") and name.endswith("_proj"):
                nn.init.normal_(parameter, std=STEER_INIT_STD, generator=generator)
            elif name == "delta_o_rmsnorm_weight":
                # The norm lifts any read to unit size, so its gain is where the soft start has to be.
                nn.init.constant_(parameter, STEER_INIT_STD)
            elif name == "delta_scale_raw":
                share = self.config.delta_scale_init / self.config.delta_scale_max
                nn.init.constant_(parameter, math.log(share / (1 - share)))
            else:
                nn.init.zeros_(parameter)
        nn.init.constant_(self.beta_bias, self.config.beta_bias_init)
        if self.config.has_decay_gate:
            nn.init.constant_(self.lambda_bias, -self.config.beta_bias_init)  # as if coupled, at first
        with torch.no_grad():
            self.memory_k_proj.copy_(self.memory_q_proj)
            steer_o = getattr(self, "delta_o_proj", None)
            if isinstance(steer_o, nn.Parameter) and steer_o.shape[0] == self.hidden:
                steer_o.copy_(COPY_INIT_SCALE * self.memory_v_proj.T)

    def steer(self, call: MemoryCall, head: Head, x: Tensor | None) -> Tensor | None:
        """Give what memory adds to a projection, or None; `x` [B, T, d] is the attention layer's input.

        The first projection of a layer that sees x runs the memory; the others use its reads.
        """
        if (self.name, head) in call.steered:
            raise UnsupportedModelError(
                f"{self.name}.{head}_proj ran twice in one pass; memory cannot tell the two apart"
            )
        call.steered.add((self.name, head))
        if self.name not in call.results:
            if x is None:
                raise UnsupportedModelError(f"{self.name}.o_proj ran before q_proj; memory had nothing to read with")
            with torch.autocast(x.device.type, enabled=False):
                call.results[self.name] = self._run(call, x.float())
        if head not in self.config.delta_heads:
            return None
        reads = call.results[self.name].reads
        with torch.autocast(reads.device.type, enabled=False):
            weight: Tensor = getattr(self, f"delta_{head}_proj")
            delta = linear(reads, weight) * self._scale(head)
            if head == "o" and self.config.delta_o_rmsnorm:
                eps = self.config.delta_o_rmsnorm_eps
                delta = rms_norm(delta, (delta.shape[-1],), self.delta_o_rmsnorm_weight, eps)
        return delta

    def _scale(self, head: Head) -> float | Tensor:
        """Give the factor of what memory adds to a projection: α/r, times the learned factor if there is one."""
        config = self.config
        if config.delta_scale == "fixed":
            return config.alpha / config.rank
        raw = self.delta_scale_raw[HEADS.index(head) if config.delta_scale == "head" else 0]
        return raw.sigmoid() * (config.delta_scale_max * config.alpha / config.rank)

    def _run(self, call: MemoryCall, x: Tensor) -> LayerResult:
        state = call.memory.layers[self.name]
        q = self._direction(x, self.memory_q_proj)
        if call.segments is not None:
            reads, result = self._run_messages(call, call.segments, x, q, state)
        elif not call.writes:
            reads = torch.einsum("bhij,bthj->bthi", state, q)
            result = LayerResult(reads, state[:, None].expand(-1, call.positions.shape[1], -1, -1, -1))
        else:
            k, v, beta, lam = self._write_inputs(x)
            out = delta_rule(
                q, k, v, beta, lam,
                mode=self.config.update_mode, initial_state=state, write_mask=call.write,
                state_positions=call.positions[:, :-1] if call.positions.shape[1] > 1 else None,
            )  # fmt: skip
            last = out.final_state[:, None]
            reads = out.y
            result = LayerResult(reads, last if out.states_at is None else torch.cat([out.states_at, last], 1))
        if call.valid is not None:
            reads = reads.where(call.valid[:, :, None, None], 0.0)
        return result._replace(reads=reads.flatten(2))

    def _run_messages(
        self, call: MemoryCall, plan: SegmentPlan, x: Tensor, q: Tensor, state: Tensor
    ) -> tuple[Tensor, LayerResult]:
        """Write the mean of each message's hidden states after it; its tokens read the state before it."""
        sums = plan.members @ x
        sums_at = plan.members_at @ x
        opened = call.memory.open_segment
        if opened is not None:
            state = opened.before[self.name]
            carried = opened.sums[self.name][:, None]
            first = torch.zeros_like(plan.counts)
            first[:, 0] = 1
            sums = sums + first[..., None] * carried
            sums_at = sums_at + (plan.run_at == 0)[..., None] * carried
        k, v, beta, lam = self._write_inputs(sums / plan.counts.clamp_min(1)[..., None])
        reads, states = segment_delta_rule(
            q, k, v, beta, lam,
            segment_of=plan.run_of, mode=self.config.update_mode, initial_state=state, write_mask=plan.counts > 0,
        )  # fmt: skip
        rows = torch.arange(len(x), device=x.device)[:, None]
        before = states[rows, plan.run_at]
        written = plan.counts_at > 0
        k, v, beta, lam = self._write_inputs((sums_at / plan.counts_at.clamp_min(1)[..., None]).flatten(0, 1)[:, None])
        out = delta_rule(
            k, k, v, beta, lam,
            mode=self.config.update_mode, initial_state=before.flatten(0, 1), write_mask=written.flatten()[:, None],
        )  # fmt: skip
        return reads, LayerResult(reads, out.final_state.view_as(before), sums_at, before)

    def _write_inputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Give k, v [.., H, r] and the gates [.., H, r or 1] of inputs x [.., d]."""
        k = self._direction(x, self.memory_k_proj)
        v = self._by_state(linear(x, self.memory_v_proj))
        beta = self._by_state(linear(x, self.beta_proj, self.beta_bias).sigmoid())
        if not self.config.has_decay_gate:
            return k, v, beta, None
        return k, v, beta, self._by_state(linear(x, self.lambda_proj, self.lambda_bias).sigmoid())

    def _direction(self, x: Tensor, weight: Tensor) -> Tensor:
        if not self.config.normalize_qk:
            return self._by_state(linear(x, weight))
        return normalize(self._by_state(linear(x, weight).tanh()), dim=-1, eps=NORM_EPS)

    def _by_state(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.config.num_states, -1)


class SteeredProjection(nn.Module):
    """Add what memory says to a frozen projection; outside a memory call it is that projection."""

    def __init__(self, base: nn.Module, head: Head, memory: LayerMemory) -> None:
        super().__init__()
        self.base = base
        self.head: Head = head
        # In a tuple, so that the memory's weights stay out of the backbone's parameters.
        self._memory = (memory,)

    @property
    def weight(self) -> Any:
        """Give the frozen projection's weight, which model code looks at for dtype and device."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """Project x [B, T, d] and add the memory's part, in the projection's dtype."""
        out: Tensor = self.base(x)
        call = CURRENT_CALL.get()
        if call is None:
            return out
        delta = self._memory[0].steer(call, self.head, None if self.head == "o" else x)
        return out if delta is None else out + delta.to(out.dtype)
