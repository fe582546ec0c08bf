"""Run the delta rule step by step with as few operations as a step can have; this is the form for decoding."""

import torch
from torch import Tensor

from backbone.ops.delta_rule.common import DeltaRuleOutput, Problem


def recurrent_delta_rule(problem: Problem) -> DeltaRuleOutput:
    """Run one step a token; read and prediction share a product, and keep and write share another."""
    keep, erase, write = problem.coefficients
    both = torch.stack([problem.q, problem.k], dim=-1)  # [B, T, H, r, 2]
    written = write * problem.v
    state = problem.state
    reads: list[Tensor] = []
    predictions: list[Tensor] = []
    states = [state]
    for t in range(both.shape[1]):
        read, predicted = (state @ both[:, t]).unbind(-1)
        change = torch.addcmul(written[:, t], erase[:, t], predicted, value=-1)
        kept = keep[:, t, :, :, None] * state
        state = torch.addcmul(kept, change[..., None], problem.k[:, t, :, None, :])
        reads.append(read)
        predictions.append(predicted)
        states.append(state)
    states_at = None
    if problem.positions is not None:
        rows = torch.arange(len(state), device=state.device)[:, None]
        states_at = torch.stack(states, dim=1)[rows, problem.positions]
    predicted_at = torch.stack(predictions, dim=1) if problem.predict else None
    return DeltaRuleOutput(torch.stack(reads, dim=1), state, states_at, predicted_at)
