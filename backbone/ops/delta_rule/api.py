"""Check a call of the delta rule and send it to the form that suits its shape."""

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import get_args

import torch
from torch import Tensor

from backbone.errors import ConfigError
from backbone.ops.delta_rule.chunked import CHUNK, chunked_delta_rule
from backbone.ops.delta_rule.common import DeltaRuleOutput, Form, Problem, UpdateMode, coefficients, wants_gradients
from backbone.ops.delta_rule.naive import naive_delta_rule
from backbone.ops.delta_rule.recurrent import recurrent_delta_rule

_FORMS: dict[str, Callable[[Problem], DeltaRuleOutput]] = {
    "naive": naive_delta_rule,
    "chunked": chunked_delta_rule,
    "recurrent": recurrent_delta_rule,
}
_MODES = ("standard", "lambda_outside", "no_lambda")


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    lam: Tensor | None = None,
    *,
    mode: UpdateMode = "standard",
    initial_state: Tensor | None = None,
    write_mask: Tensor | None = None,
    state_positions: Tensor | None = None,
    predict: bool = False,
    form: Form = "auto",
) -> DeltaRuleOutput:
    """Read then write a matrix state along a sequence, differentiably in every tensor.

    y_t = S_{t-1} q_t;  S_t = diag(λ_t) S_{t-1} - diag(ε_t) (S_{t-1} k_t) k_tᵀ + diag(β_t) v_t k_tᵀ, where ε is β
    ("standard", "no_lambda") or λβ ("lambda_outside"), and λ is `lam`, 1 - β (`lam` None) or 1 ("no_lambda").

    Shapes: q, k, v [B, T, H, r]; beta, lam [B, T, H, r] or [B, T, H, 1]; initial_state [B, H, r, r], its rows are value
    rows, None is zeros; write_mask [B, T] bool: a token without it keeps S.
    state_positions [B, P] int: counts n, for the state after the first n tokens, in states_at. predict: also give
    S_{t-1} k_t in predicted, whatever the masks.
    The state is float32, or float64 if q is. Raises ValueError for shapes that do not fit.
    """
    problem = _problem(q, k, v, beta, lam, mode, initial_state, write_mask, state_positions)._replace(predict=predict)
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {get_args(Form)}, got {form!r}")
    # Under autocast the products would run in half precision and the state would lose what it was told.
    with torch.autocast(q.device.type, enabled=False):
        return scan(problem, form)


def scan(problem: Problem, form: Form = "auto") -> DeltaRuleOutput:
    """Run a problem whose shapes, dtypes and positions are known to be right, outside autocast."""
    if form == "auto":
        form = _best_form(problem)
    if form == "triton":
        return _triton_form()(problem)
    return _FORMS[form](problem)


def _best_form(problem: Problem) -> Form:
    """Choose Triton on a GPU, where it can do what is asked, else what suits the length."""
    if has_triton(problem.q) and (problem.positions is None or not wants_gradients(problem)):
        return "triton"
    return "recurrent" if problem.q.shape[1] < CHUNK else "chunked"


def has_triton(like: Tensor) -> bool:
    """Tell whether Triton's kernels are to be used for tensors like this one: float32, Triton installed, on a GPU.

    Triton's interpreter counts as a GPU, where a program has loaded Triton with it.
    """
    return like.dtype == torch.float32 and (like.is_cuda or _interprets()) and _finds_triton()


def _interprets() -> bool:
    loaded = sys.modules.get("triton")
    return loaded is not None and bool(loaded.knobs.runtime.interpret)


@cache
def _finds_triton() -> bool:
    return find_spec("triton") is not None


def _triton_form() -> Callable[[Problem], DeltaRuleOutput]:
    """Load the Triton form, which is optional; raises ConfigError where Triton is not installed."""
    if not _finds_triton():
        raise ConfigError("form='triton' needs Triton: pip install triton")
    module = import_module("backbone.ops.delta_rule.triton_scan")
    form: Callable[[Problem], DeltaRuleOutput] = module.triton_delta_rule
    return form


def fused_step() -> Callable[..., tuple[Tensor, Tensor]]:
    """Load what does one token of one layer in one kernel, where `has_triton`; see `triton_step.fused_step`."""
    step: Callable[..., tuple[Tensor, Tensor]] = import_module("backbone.ops.delta_rule.triton_step").fused_step
    return step


def _problem(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    lam: Tensor | None,
    mode: UpdateMode,
    initial_state: Tensor | None,
    write_mask: Tensor | None,
    positions: Tensor | None,
) -> Problem:
    """Check shapes and bring everything to the state's dtype."""
    if mode not in _MODES:
        raise ValueError(f"mode must be one of {_MODES}, got {mode!r}")
    if q.dim() != 4 or q.shape[1] == 0:
        raise ValueError(f"q must be [B, T, H, r] with T ≥ 1, got {tuple(q.shape)}")
    batch, length, heads, rank = q.shape
    _expect("k", k, (batch, length, heads, rank))
    _expect("v", v, (batch, length, heads, rank))
    for name, gate in (("beta", beta), ("lam", lam)):
        if gate is not None:
            _expect(name, gate, (batch, length, heads, gate.shape[-1] if gate.shape[-1] == 1 else rank))
    if write_mask is not None:
        _expect("write_mask", write_mask, (batch, length))
    if positions is not None:
        _expect("state_positions", positions, (batch, positions.shape[-1]))
        if bool(((positions < 0) | (positions > length)).any()):
            raise ValueError(f"state_positions must lie in 0 to {length}, got {positions.tolist()}")
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    if initial_state is None:
        initial_state = q.new_zeros(batch, heads, rank, rank, dtype=dtype)
    _expect("initial_state", initial_state, (batch, heads, rank, rank))
    gates = coefficients(beta.to(dtype), None if lam is None else lam.to(dtype), mode, write_mask)
    return Problem(q.to(dtype), k.to(dtype), v.to(dtype), gates, initial_state.to(dtype), positions)


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(tensor.shape)}")
