"""Print how many bytes a process needs to make "bench-512" and read a prompt: `… peak {frozen,memory} TOKENS`.

It is a process of its own, because a process's peak includes whatever ran in it before.
"""

import sys
from pathlib import Path

import torch

from backbone.bench.case import ADAPTERS, frozen_backbone, random_ids, with_memory
from backbone.errors import ConfigError

__all__ = ["main"]


@torch.no_grad()
def main(kind: str, tokens: int) -> None:
    """Print the peak of the resident memory, less what was resident before the model was made."""
    torch.set_num_threads(1)
    before = _resident("VmRSS")
    frozen, ids = frozen_backbone(), random_ids(1, tokens)
    if kind == "memory":
        with_memory(frozen, ADAPTERS["tsw"])(ids, logits_to_keep=1)
    else:
        frozen(input_ids=ids, logits_to_keep=1)
    print(_resident("VmHWM") - before)


def _resident(field: str) -> int:
    status = Path("/proc/self/status")
    if not status.is_file():
        raise ConfigError("peak memory is read from /proc/self/status, which this system does not have; use Linux")
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
