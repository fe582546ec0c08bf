"""Hold what the forms of the delta rule share: names, output and the three coefficients of a write."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

UpdateMode = Literal["standard", "lambda_outside", "no_lambda"]
Form = Literal["auto", "naive", "chunked", "recurrent", "triton"]


class DeltaRuleOutput(NamedTuple):
    """Hold reads y [B, T, H, r], the final state [B, H, r, r], and what else was asked for.

    That is states [B, P, H, r, r] at positions, and predicted [B, T, H, r], what each state held under its token's key.
    """

    y: Tensor
    final_state: Tensor
    states_at: Tensor | None
    predicted: Tensor | None = None


class Coefficients(NamedTuple):
    """Hold keep, erase and write of every token, each [B, T, H, r] or [B, T, H, 1]; a masked token has 1, 0, 0."""

    keep: Tensor
    erase: Tensor
    write: Tensor


class Problem(NamedTuple):
    """Hold a checked call: q, k, v [B, T, H, r] and state [B, H, r, r] in one dtype, coefficients, positions [B, P]."""

    q: Tensor
    k: Tensor
    v: Tensor
    coefficients: Coefficients
    state: Tensor
    positions: Tensor | None
    predict: bool = False


def wants_gradients(problem: Problem) -> bool:
    """Tell whether gradients are to flow through a problem's solution."""
    tensors = (problem.q, problem.k, problem.v, *problem.coefficients, problem.state)
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def coefficients(beta: Tensor, lam: Tensor | None, mode: UpdateMode, write_mask: Tensor | None) -> Coefficients:
    """Turn gates into keep, erase and write.

    `beta`, `lam`: [B, T, H, r] or [B, T, H, 1]; `lam` None is 1 - beta. `write_mask`: [B, T] bool.
    """
    keep = 1 - beta if lam is None else lam
    if mode == "no_lambda":
        keep = torch.ones_like(beta)
    erase = keep * beta if mode == "lambda_outside" else beta
    if write_mask is None:
        return Coefficients(keep, erase, beta)
    active = write_mask[:, :, None, None]
    return Coefficients(keep.where(active, 1.0), erase.where(active, 0.0), beta.where(active, 0.0))
