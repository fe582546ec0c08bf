"""Draw the weights of a new adapter."""

import math

import torch
from torch import nn

from backbone.adapter.layer import LayerMemory

__all__ = ["initialise"]

STEER_INIT_STD = 0.02
COPY_INIT_SCALE = 2.0


def initialise(memory: LayerMemory, generator: torch.Generator | None = None) -> None:
    """Draw new weights: every gate is at its bias, keys match queries, and a read leans towards what was written.

    Keys begin with the queries' weights and the o head with the transposed value weights, so a token that resembles
    a written one is given back what followed from it, coarsely. From random weights the memory is of no use at
    first, and its gates close before it is.
    """
    for name, parameter in memory.named_parameters():
        if name.startswith("memory_"):
            nn.init.normal_(parameter, std=1 / math.sqrt(memory.hidden), generator=generator)
        elif name.startswith("delta_") and name.endswith("_proj"):
            nn.init.normal_(parameter, std=STEER_INIT_STD, generator=generator)
        elif name == "delta_o_rmsnorm_weight":
            # The norm lifts any read to unit size, so its gain is where the soft start has to be.
            nn.init.constant_(parameter, STEER_INIT_STD)
        elif name == "delta_scale_raw":
            share = memory.config.delta_scale_init / memory.config.delta_scale_max
            nn.init.constant_(parameter, math.log(share / (1 - share)))
        else:
            nn.init.zeros_(parameter)
    nn.init.constant_(memory.beta_bias, memory.config.beta_bias_init)
    if memory.config.has_decay_gate:
        nn.init.constant_(memory.lambda_bias, -memory.config.beta_bias_init)  # as if coupled, at first
    with torch.no_grad():
        memory.memory_k_proj.copy_(memory.memory_q_proj)
        steer_o = getattr(memory, "delta_o_proj", None)
        if isinstance(steer_o, nn.Parameter) and steer_o.shape[0] == memory.hidden:
            steer_o.copy_(COPY_INIT_SCALE * memory.memory_v_proj.T)
