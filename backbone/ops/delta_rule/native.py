"""Decode one token of one layer on a CPU in one call of machine code: projections, gates, read, write and steering.

llvmlite makes the code, where it is installed (the extra `fast`). Beside a small model, the number of calls is what a
memory costs in decoding.
"""

import ctypes
import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from backbone.ops.delta_rule.common import UpdateMode

_log = logging.getLogger(__name__)


class StepShape(NamedTuple):
    """Say what the code is made for: width of the input, state heads, rank, options, and what reads are scaled by."""

    hidden: int
    heads: int
    rank: int
    mode: UpdateMode
    own_decay: bool
    per_row: bool
    unit: bool  # queries and keys are unit vectors
    eps: float
    scale: float

    @property
    def projected(self) -> int:
        """Give the number of rows that are projected: queries, keys, values, write gates, decay gates."""
        gates = self.heads * (self.rank if self.per_row else 1)
        return 3 * self.heads * self.rank + gates * (2 if self.own_decay else 1)


class Row(NamedTuple):
    """Hold the addresses a layer's step works with, in the order in which the code finds them as 64-bit integers.

    float32, contiguous: weight [P, d]; bias [P]; state, after [B, H, r, r]; reads [B, H·r]; scratch [P].
    bool: valid, write [B], or 0 for all. `batch`: B, no address.
    """

    weight: int
    bias: int
    state: int
    after: int
    reads: int
    scratch: int
    valid: int
    write: int
    batch: int


class NativeStep:
    """Call the code of one shape.

    `run(row, x, weight, out, width)`, all integers, `row` the address of a Row: where x is not 0, read and write the
    token x [B, d]; where out is not 0, add scale · W y to out [B, width], of the reads y and W [width, H·r] at
    `weight`. Tensors are float32 and contiguous; addresses are not checked.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine  # holds the code
        # The code takes microseconds; to let another thread run meanwhile would take as long.
        kind: Any = ctypes.PYFUNCTYPE(None, *[ctypes.c_ssize_t] * 5)
        self.run: Callable[[int, int, int, int, int], None] = kind(engine.get_function_address("step"))


def has_native() -> bool:
    """Tell whether machine code can be made: llvmlite is installed and can be loaded."""
    return _compiler() is not None


@cache
def native_step(shape: StepShape) -> NativeStep | None:
    """Make the code of a shape, once a process, in some hundredths of a second; None where it cannot be made."""
    compiler = _compiler()
    return None if compiler is None else NativeStep(compiler(shape))


@cache
def _compiler() -> Callable[[StepShape], Any] | None:
    """Load what makes the code, and say once which form decodes."""
    if find_spec("llvmlite") is None:
        _log.info("llvmlite is not installed (the extra 'fast'): tokens are decoded on a CPU by torch, more slowly")
        return None
    try:
        compiler: Callable[[StepShape], Any] = import_module("backbone.ops.delta_rule.native_code").compiler()
    except (ImportError, OSError, AttributeError) as error:
        _log.warning("llvmlite cannot be loaded (%s): tokens are decoded on a CPU by torch, more slowly", error)
        return None
    _log.debug("tokens are decoded on a CPU by machine code")
    return compiler
