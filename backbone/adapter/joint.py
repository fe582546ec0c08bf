"""Keep the weights of a layer's small projections in one piece, so that one matrix product serves them all."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn


class Joined(NamedTuple):
    """Hold the rows of all projections [P, d] and their biases [P], one below the other."""

    weight: Tensor
    bias: Tensor


class JointWeights:
    """Hold two blocks of memory that a module's parameters are views of: its `weights` and, below zeros, its `biases`.

    Parameters that are changed in place change the blocks. Where one has been given other memory since (a copied
    module, weights assigned instead of copied), and where gradients are wanted, the rows are joined anew.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter | None], weights: Sequence[str], biases: Sequence[str]
    ) -> None:
        # The module's own, in which one parameter may come to stand for another; none of these is None.
        self._of = cast("Mapping[str, nn.Parameter]", parameters)
        self._weights, self._biases = weights, biases
        self._zeros = sum(len(self._of[name]) for name in weights) - sum(len(self._of[name]) for name in biases)
        with torch.no_grad():
            self._blocks = self._join()
        for block, names in ((self._blocks.weight, weights), (self._blocks.bias[self._zeros :], biases)):
            parts = torch.split(block, [len(self._of[name]) for name in names])
            for name, part in zip(names, parts, strict=True):
                self._of[name].data = part
        self._places = self._find()

    def joined(self) -> Joined:
        """Give all rows."""
        if torch.is_grad_enabled() or self._find() != self._places:
            return self._join()
        return self._blocks

    def _find(self) -> list[int]:
        of = self._of
        return [of[name].data_ptr() for names in (self._weights, self._biases) for name in names]

    def _join(self) -> Joined:
        weights: list[Tensor] = [self._of[name] for name in self._weights]
        biases: list[Tensor] = [self._of[name] for name in self._biases]
        return Joined(torch.cat(weights), torch.cat([biases[0].new_zeros(self._zeros), *biases]))
