"""Keep the weights of a layer's small projections in one piece, so that one matrix product serves them all."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class JointWeights:
    """Hold one block of memory that parameters are views of, one below the other, under the rows `above`.

    Parameters that are changed in place change the block. Where one has been given other memory since (a copied
    module, weights assigned instead of copied), and where gradients are wanted, the rows are joined anew.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], above: Tensor | None = None) -> None:
        self._parameters = tuple(parameters)
        self._parts: tuple[Tensor, ...] = self._parameters if above is None else (above, *self._parameters)
        with torch.no_grad():
            self._block = torch.cat(self._parts)
        blocks = torch.split(self._block, [len(part) for part in self._parts])[-len(self._parameters) :]
        for parameter, own in zip(self._parameters, blocks, strict=True):
            parameter.data = own
        self._places = [parameter.data_ptr() for parameter in self._parameters]

    def joined(self) -> Tensor:
        """Give all rows."""
        if torch.is_grad_enabled() or [parameter.data_ptr() for parameter in self._parameters] != self._places:
            return torch.cat(self._parts)
        return self._block
