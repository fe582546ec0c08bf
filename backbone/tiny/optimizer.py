"""Build the optimizer of the backbone: Muon for matrices, AdamW for the rest."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = ["Muon", "backbone_optimizers"]


def _orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return the nearest semi-orthogonal matrices `[N, m, n]` by a quintic Newton-Schulz iteration.

    Coefficients: Jordan et al. 2024, "Muon". In fp32, because `torch.optim.Muon` iterates in bf16, which a CPU
    without bf16 units runs an order of magnitude slower.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return cast(Tensor, x.mT if tall else x)


class Muon(torch.optim.Optimizer):
    """Step matrices along their orthogonalised momentum, scaled to AdamW's usual step size."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.05
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override] # noqa: ARG002
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                shapes[parameter.shape].append(parameter)
            for shape, parameters in shapes.items():
                self._step_shape(group, shape, parameters)

    def _step_shape(self, group: dict[str, Any], shape: torch.Size, parameters: list[nn.Parameter]) -> None:
        updates = []
        for parameter in parameters:
            if parameter.grad is None:
                return
            buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            buffer.lerp_(parameter.grad, 1 - group["momentum"])
            updates.append(parameter.grad.lerp(buffer, group["momentum"]))
        scale = 0.2 * max(shape) ** 0.5
        for parameter, update in zip(parameters, _orthogonalise(torch.stack(updates)), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


def backbone_optimizers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices inside the layers and AdamW for embeddings and norms."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in named if p.ndim != 2 or "embed" in name]
    return [Muon(matrices, lr=lr), torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]
