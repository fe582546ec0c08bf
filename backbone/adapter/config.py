"""Hold the options of an adapter."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from backbone.errors import ConfigError
from backbone.ops.delta_rule import UpdateMode

Granularity = Literal["token", "message", "sentence"]
DeltaScale = Literal["fixed", "layer", "head"]
Head = Literal["q", "k", "v", "o"]

HEADS: tuple[Head, ...] = ("q", "k", "v", "o")
_CHOICES = {
    "granularity": ("token", "message", "sentence"),
    "update_mode": ("standard", "lambda_outside", "no_lambda"),
    "delta_scale": ("fixed", "layer", "head"),
}


@dataclass(frozen=True, kw_only=True)
class DeltaMemConfig:
    """Describe an adapter.

    The published variants are TSW (the default), MSW (`num_states=4`) and SSW (`granularity="message"`).

    - `rank`: rows and columns of one state matrix. `num_states`: state matrices a layer.
    - `alpha`: what memory adds to a projection is scaled by alpha / rank.
    - `granularity`: write after every token, or after every message or sentence with its mean hidden state.
    - `normalize_qk`: queries and keys are unit vectors of squashed projections, or the projections as they are.
    - `delta_heads`: the projections that memory steers.
    - `per_row_gates`: one write gate per state row, or one for a whole state matrix.
    - `coupled_decay`: what is kept is 1 - write gate, or a gate of its own.
    - `update_mode`: how decay and erasure meet, see `backbone.ops.delta_rule.delta_rule`.
    - `beta_bias_init`: the write gate's first bias; -1.5 is a gate of 0.18.
    - `delta_o_rmsnorm`: normalise what memory adds to the attention's output, with `delta_o_rmsnorm_eps`.
    - `delta_scale`: what memory adds has one more factor, learned per layer or per layer and head, between 0 and
      `delta_scale_max`; it begins at `delta_scale_init`. "fixed" is without one.
    - `target_layers`: indices of the decoder layers that get a memory; empty is all.

    Raises ConfigError for a value that cannot work. Source: arXiv 2605.12357, sections 2 and 3.
    """

    rank: int = 8
    alpha: float = 16.0
    num_states: int = 1
    granularity: Granularity = "token"
    delta_heads: tuple[Head, ...] = ("q", "o")
    normalize_qk: bool = True
    per_row_gates: bool = True
    coupled_decay: bool = True
    update_mode: UpdateMode = "standard"
    beta_bias_init: float = -1.5
    delta_o_rmsnorm: bool = False
    delta_o_rmsnorm_eps: float = 1e-6
    delta_scale: DeltaScale = "fixed"
    delta_scale_init: float = 1.0
    delta_scale_max: float = 2.0
    target_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta_heads", tuple(h for h in HEADS if h in self._checked_heads()))
        object.__setattr__(self, "target_layers", tuple(sorted(set(self.target_layers))))
        for name in ("rank", "num_states"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        for name in ("alpha", "delta_o_rmsnorm_eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 < self.delta_scale_init < self.delta_scale_max < math.inf:
            raise ConfigError(
                f"delta_scale_init must lie between 0 and delta_scale_max, got {self.delta_scale_init} and "
                f"{self.delta_scale_max}"
            )
        if self.update_mode == "no_lambda" and not self.coupled_decay:
            raise ConfigError("update_mode 'no_lambda' keeps everything; a decay gate of its own would do nothing")
        if self.delta_o_rmsnorm and "o" not in self.delta_heads:
            raise ConfigError("delta_o_rmsnorm normalises the 'o' head, which is not in delta_heads")

    @property
    def has_decay_gate(self) -> bool:
        """Tell whether the decay is a gate with weights of its own."""
        return not self.coupled_decay

    @property
    def writes_segments(self) -> bool:
        """Tell whether a write takes a whole message or sentence, whose tokens the caller has to name."""
        return self.granularity != "token"

    def to_dict(self) -> dict[str, Any]:
        """Give the options as JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "DeltaMemConfig":
        """Read what `to_dict` gave; raises ConfigError that names every unknown option."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(options) - known):
            raise ConfigError(f"unknown adapter options {unknown}; known are {sorted(known)}")
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
        return cls(**given)

    def _checked_heads(self) -> tuple[str, ...]:
        heads = tuple(self.delta_heads)
        if not heads or any(head not in HEADS for head in heads):
            raise ConfigError(f"delta_heads must be a non-empty subset of {HEADS}, got {heads}")
        return heads
