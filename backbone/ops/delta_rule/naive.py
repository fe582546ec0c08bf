"""Define the delta rule token by token, as the equations say it; every other form is tested against this one."""

import torch
from torch import Tensor

from backbone.ops.delta_rule.common import DeltaRuleOutput, Problem


def naive_delta_rule(problem: Problem) -> DeltaRuleOutput:
    """Run y_t = S_{t-1} q_t, then S_t = diag(λ) S_{t-1} - diag(ε) (S_{t-1} k) kᵀ + diag(β) v kᵀ, token by token."""
    keep, erase, write = problem.coefficients
    state = problem.state
    reads: list[Tensor] = []
    predictions: list[Tensor] = []
    states = [state]
    for t in range(problem.q.shape[1]):
        q, k, v = problem.q[:, t], problem.k[:, t], problem.v[:, t]
        reads.append((state @ q[..., None])[..., 0])
        predicted = (state @ k[..., None])[..., 0]
        kept = keep[:, t, :, :, None] * state
        state = kept + (write[:, t] * v - erase[:, t] * predicted)[..., None] * k[..., None, :]
        predictions.append(predicted)
        states.append(state)
    states_at = None
    if problem.positions is not None:
        rows = torch.arange(len(state), device=state.device)[:, None]
        states_at = torch.stack(states, dim=1)[rows, problem.positions]
    predicted_at = torch.stack(predictions, dim=1) if problem.predict else None
    return DeltaRuleOutput(torch.stack(reads, dim=1), state, states_at, predicted_at)
