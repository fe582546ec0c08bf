"""Let a memory steer queries, keys and values that come out of one packed projection."""

from typing import Any

import torch
from torch import Tensor, nn

from backbone.adapter.call import CURRENT_CALL
from backbone.adapter.config import Head
from backbone.adapter.layer import LayerMemory


class SteeredPackedProjection(nn.Module):
    """Add what memory says to the parts of a frozen projection whose output is queries, keys, values, in that order.

    `widths`: output width of each part. Outside a memory call it is the frozen projection.
    """

    def __init__(self, base: nn.Module, widths: dict[Head, int], memory: LayerMemory) -> None:
        super().__init__()
        self.base = base
        self.widths = widths
        # In a tuple, so that the memory's weights stay out of the backbone's parameters.
        self._memory = (memory,)

    @property
    def weight(self) -> Any:
        """Give the frozen projection's weight, which model code looks at for dtype and device."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """Project x [B, T, d] and add the memory's parts, in the projection's dtype."""
        out: Tensor = self.base(x)
        call = CURRENT_CALL.get()
        if call is None:
            return out
        deltas = {head: self._memory[0].steer(call, head, x) for head in self.widths}
        parts = zip(deltas.values(), torch.split(out, list(self.widths.values()), dim=-1), strict=True)
        return torch.cat([part if delta is None else part + delta.to(out.dtype) for delta, part in parts], dim=-1)
