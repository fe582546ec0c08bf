"""Hold one attention layer's memory: its weights, what it reads and writes, and how it steers."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm

from backbone.adapter.call import LayerResult, MemoryCall, SegmentPlan, ran_early, ran_twice
from backbone.adapter.config import HEADS, DeltaMemConfig, Head
from backbone.adapter.joint import Joined, JointWeights
from backbone.ops.delta_rule import Form, Problem, coefficients, fused_step, has_triton, scan, segment_scan

NORM_EPS = 1e-6  # of the published code, for q and k


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
        self.form: Form = "auto"  # of the delta rule along a sequence; another one serves comparisons
        states = config.num_states * config.rank
        gates = states if config.per_row_gates else config.num_states
        self._width = states  # of queries, keys and values
        self.plain_scale = config.alpha / config.rank
        scaled, normed = config.delta_scale != "fixed", config.delta_o_rmsnorm
        # To these, memory adds a product times a constant.
        self.plain_heads = [head for head in config.delta_heads if not scaled and not (head == "o" and normed)]

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
        self._join()

    def steer(self, call: MemoryCall, head: Head, x: Tensor | None, out: Tensor) -> Tensor:
        """Add what memory says to a projection's output [B, T, w]; `x` [B, T, d] is the attention layer's input.

        The first projection of a layer that sees x runs the memory; the others use its reads. Without gradients `out`
        is changed in place: a projection has just made it, and a copy would be as large.
        """
        if not torch.is_autocast_enabled(out.device.type):
            return self._steer(call, head, x, out)
        # In half precision the state would lose what it was told.
        with torch.autocast(out.device.type, enabled=False):
            return self._steer(call, head, x, out)

    def _steer(self, call: MemoryCall, head: Head, x: Tensor | None, out: Tensor) -> Tensor:
        if (self.name, head) in call.steered:
            raise ran_twice(self.name, head)
        call.steered.add((self.name, head))
        result = call.results.get(self.name)
        if result is None:
            if x is None:
                raise ran_early(self.name)
            result = call.results[self.name] = self._run(call, x)
        if head == "o" and head in self.config.delta_heads and call.telemetry is not None:
            call.telemetry.correction(self.name, self._delta(head, result.reads.detach()).view_as(out), out)
        return self.add(head, result.reads, out)

    def add(self, head: Head, reads: Tensor, out: Tensor) -> Tensor:
        """Add α/r · W_Δ y, of reads y [B·T, H·r], to a projection's output in its dtype, if memory steers it."""
        if head not in self.config.delta_heads:
            return out
        if head in self.plain_heads and out.dtype == reads.dtype and out.is_contiguous():
            rows, weight = out.view(-1, out.shape[-1]), self.steering_weight(head).t()
            if torch.is_grad_enabled():
                return torch.addmm(rows, reads, weight, alpha=self.plain_scale).view_as(out)
            rows.addmm_(reads, weight, alpha=self.plain_scale)
            return out
        delta = self._delta(head, reads).view_as(out)
        return out + delta.to(out.dtype) if torch.is_grad_enabled() else out.add_(delta)

    def _delta(self, head: Head, reads: Tensor) -> Tensor:
        delta = linear(reads, self.steering_weight(head)) * self._scale(head)
        if head == "o" and self.config.delta_o_rmsnorm:
            eps = self.config.delta_o_rmsnorm_eps
            delta = rms_norm(delta, (delta.shape[-1],), self.delta_o_rmsnorm_weight, eps)
        return delta

    def steering_weight(self, head: Head) -> Tensor:
        """Give W_Δ [w, H·r] of a head that memory steers."""
        weight: Tensor = getattr(self, f"delta_{head}_proj")
        return weight

    def _scale(self, head: Head) -> float | Tensor:
        """Give the factor of what memory adds to a projection: α/r, times the learned factor if there is one."""
        config = self.config
        if config.delta_scale == "fixed":
            return self.plain_scale
        raw = self.delta_scale_raw[HEADS.index(head) if config.delta_scale == "head" else 0]
        return raw.sigmoid() * (config.delta_scale_max * self.plain_scale)

    def _run(self, call: MemoryCall, x: Tensor) -> LayerResult:
        state = call.memory.layers[self.name]
        fused = self.fuses(call, state)
        result = self._fused_step(call, x, state) if fused else self._run_apart(call, x.float(), state)
        if call.valid is None:
            return result
        return result._replace(reads=result.reads.where(call.valid.reshape(-1, 1), 0.0))

    def fuses(self, call: MemoryCall, state: Tensor) -> bool:
        """Tell whether one kernel can do all; it tells nothing but reads and state, so no measured call can use it."""
        plain = call.one_step and call.message is None and call.telemetry is None and self.config.normalize_qk
        return plain and has_triton(state) and not torch.is_grad_enabled()

    def _fused_step(self, call: MemoryCall, x: Tensor, state: Tensor) -> LayerResult:
        """Project, read and write one token in one kernel."""
        config, write = self.config, None if call.write is None else call.write[:, 0]
        reads, after = fused_step()(
            x[:, 0], *self._weights.joined(), state, write,
            mode=config.update_mode, own_decay=config.has_decay_gate, per_row=config.per_row_gates, eps=NORM_EPS,
        )  # fmt: skip
        return LayerResult(reads, after[:, None])

    def _run_apart(self, call: MemoryCall, x: Tensor, state: Tensor) -> LayerResult:
        """Project, then read and write."""
        if call.segments is not None:
            return self._run_messages(call, call.segments, x, state)
        weight, bias = self._weights.joined()
        if call.message is not None:
            q = self._queries(linear(x, weight[: self._width]))
            return LayerResult(_read(call.message.before[self.name], q), to_write=x)
        if not call.writes:
            reads = _read(state, self._queries(linear(x, weight[: self._width])))
            return LayerResult(reads, state[:, None].expand(-1, call.positions.shape[1], -1, -1, -1))
        projected = linear(x, weight, bias)
        q = self._queries(projected.narrow(-1, 0, self._width))
        if call.one_step:  # it reads what was before it, so the writes of all layers can be made together, afterwards
            return LayerResult(_read(state, q), to_write=projected)
        return self._scan(call, q, projected, state)

    def _scan(self, call: MemoryCall, q: Tensor, projected: Tensor, state: Tensor) -> LayerResult:
        """Read and write along the tokens."""
        k, v, beta, lam = self.write_inputs(projected)
        gates = coefficients(beta, lam, self.config.update_mode, call.write)
        asked = call.positions[:, :-1] if call.positions.shape[1] > 1 else None
        out = scan(Problem(q, k, v, gates, state, asked, predict=call.telemetry is not None), self.form)
        if call.telemetry is not None and out.predicted is not None:
            call.telemetry.token_writes(self.name, v, out.predicted, beta)
        last = out.final_state[:, None]
        states = last if out.states_at is None else torch.cat([out.states_at, last], 1)
        return LayerResult(out.y.reshape(-1, self._width), states)

    def _run_messages(self, call: MemoryCall, plan: SegmentPlan, x: Tensor, state: Tensor) -> LayerResult:
        """Write the mean of each message's hidden states after it; its tokens read the state before it."""
        weight, bias = self._weights.joined()
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

        def problem(means: Tensor, state: Tensor, written: Tensor, positions: Tensor | None) -> Problem:
            k, v, beta, lam = self.write_inputs(linear(means, weight, bias))
            return Problem(k, k, v, coefficients(beta, lam, self.config.update_mode, written), state, positions)

        means = sums / plan.counts.clamp_min(1)[..., None]
        q = self._queries(linear(x, weight[: self._width]))
        writes = problem(means, state, plan.counts > 0, plan.numbers)
        reads, states, predicted = segment_scan(writes, q, plan.layout)
        if call.telemetry is not None:
            call.telemetry.message_writes(self.name, plan, writes.v, predicted, writes.coefficients.write, states)
        before = states[torch.arange(len(x), device=x.device)[:, None], plan.run_at]
        # What each asked position would leave behind, if the message that is open there ended there.
        means = (sums_at / plan.counts_at.clamp_min(1)[..., None]).flatten(0, 1)[:, None]
        out = scan(problem(means, before.flatten(0, 1), (plan.counts_at > 0).flatten()[:, None], None))
        return LayerResult(reads.reshape(-1, self._width), out.final_state.view_as(before), sums_at, before)

    def joined(self) -> Joined:
        """Give weights [P, d] and biases [P] of all that is projected: queries, keys, values, then gates."""
        return self._weights.joined()

    def write_inputs(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Give k, v [.., H, r] and the gates [.., H, r or 1] of what is projected [.., P]."""
        width = self._width
        _, k, v, gates = projected.tensor_split((width, 2 * width, 3 * width), dim=-1)
        gates = gates.sigmoid()
        if not self.config.has_decay_gate:
            return self._queries(k), self._by_state(v), self._by_state(gates), None
        beta, lam = gates.chunk(2, dim=-1)
        return self._queries(k), self._by_state(v), self._by_state(beta), self._by_state(lam)

    def _queries(self, projected: Tensor) -> Tensor:
        """Give queries or keys [.., H, r] of what is projected: unit vectors, or as it is if not normalised."""
        if not self.config.normalize_qk:
            return self._by_state(projected)
        squashed = self._by_state(projected.tanh())
        length: Tensor = torch.linalg.vector_norm(squashed, dim=-1, keepdim=True)
        return squashed / length.clamp_min(NORM_EPS)

    def _by_state(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.config.num_states, -1)

    def _join(self) -> None:
        """Lay the weights of queries, keys, values and gates out as one block, and their biases as another."""
        weights, biases = ["memory_q_proj", "memory_k_proj", "memory_v_proj", "beta_proj"], ["beta_bias"]
        if self.config.has_decay_gate:
            weights.append("lambda_proj")
            biases.append("lambda_bias")
        self._weights = JointWeights(self._parameters, weights, biases)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keep(tensor: Tensor) -> Tensor:
            new = fn(tensor)  # moved or cast; memory is float32 beside any backbone
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        super()._apply(keep, recurse)  # type: ignore[no-untyped-call]
        self._join()
        return self


def _read(state: Tensor, q: Tensor) -> Tensor:
    """Read one state [B, H, r, r] with every query [B, T, H, r]; gives [B·T, H·r]."""
    reads = (q.transpose(1, 2) @ state.transpose(-1, -2)).transpose(1, 2)
    return reads.reshape(-1, reads.shape[-2] * reads.shape[-1])
