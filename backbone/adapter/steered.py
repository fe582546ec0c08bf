"""Wrap a frozen decoder's projections, so that a memory sees their input and steers their output."""

from typing import Any

import torch
from torch import Tensor, nn

from backbone.adapter.call import CURRENT_CALL
from backbone.adapter.config import Head
from backbone.adapter.layer import LayerMemory


class Steered(nn.Module):
    """Wrap a frozen projection; outside a memory call it is that projection."""

    def __init__(self, base: nn.Module, memory: LayerMemory) -> None:
        super().__init__()
        self.base = base
        # In a tuple, so that the memory's weights stay out of the backbone's parameters.
        self._memory = (memory,)

    @property
    def weight(self) -> Any:
        """Give the frozen projection's weight, which model code looks at for dtype and device."""
        return self.base.weight


class SteeredProjection(Steered):
    """Add what memory says to a frozen projection."""

    def __init__(self, base: nn.Module, head: Head, memory: LayerMemory) -> None:
        super().__init__(base, memory)
        self.head: Head = head

    def forward(self, x: Tensor) -> Tensor:
        """Project x [B, T, d] and add the memory's part, in the projection's dtype."""
        out: Tensor = self.base(x)
        call = CURRENT_CALL.get()
        if call is None:
            return out
        return call.steer(self._memory[0], self.head, None if self.head == "o" else x, out)


class SteeredPackedProjection(Steered):
    """Add what memory says to the parts of a frozen projection whose output is queries, keys, values, in that order.

    `widths`: output width of each part.
    """

    def __init__(self, base: nn.Module, widths: dict[Head, int], memory: LayerMemory) -> None:
        super().__init__(base, memory)
        self.widths = widths

    def forward(self, x: Tensor) -> Tensor:
        """Project x [B, T, d] and add the memory's parts, in the projection's dtype."""
        out: Tensor = self.base(x)
        call = CURRENT_CALL.get()
        if call is None:
            return out
        parts = zip(self.widths, torch.split(out, list(self.widths.values()), dim=-1), strict=True)
        return torch.cat([call.steer(self._memory[0], head, x, part) for head, part in parts], dim=-1)
