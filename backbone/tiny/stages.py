"""Hold the lengths, step sizes and material of the recipe's phases for the backbone and stages for the adapters."""

from collections.abc import Mapping
from dataclasses import replace

from backbone.tiny.memory_training import MemoryTrainingOptions
from backbone.tiny.pretrain import PretrainOptions

__all__ = [
    "ACTIONS",
    "ANY_TOOLS",
    "BACKWARDS",
    "EXTEND",
    "LEARN",
    "REFINE",
    "REMEMBER",
    "SETTLE",
    "SETTLE_IN",
    "SHARPEN",
    "Stages",
]

LEARN = PretrainOptions()
SETTLE = PretrainOptions(
    steps=650, lr=2.5e-3, seed=10, other_weight=0.02, action_share=0.4, tools_share=0.4, curriculum=False
)
# What the first two leave weak: facts that nobody repeated, far back in long conversations, and calls that need them.
SHARPEN = PretrainOptions(
    steps=1100,
    lr=2.5e-3,
    seed=20,
    other_weight=0.02,
    action_share=0.5,
    tools_share=0.4,
    plain_reply_share=0.5,
    acting_facts=3,
    widths=(256, 512, 768, 1024, 1536),
    curriculum=False,
)
# What was added once adapters existed: the tools of the example agents, and statements that give the value first. The
# decoder changes so little by it that adapters go on from where they are, which takes minutes instead of an hour.
EXTEND = PretrainOptions(
    steps=700,
    lr=2e-3,
    seed=30,
    other_weight=0.02,
    action_share=0.5,
    tools_share=0.5,
    plain_reply_share=0.5,
    acting_facts=3,
    value_first_share=0.3,
    widths=(384, 512, 768, 1024, 1536),
    curriculum=False,
)
# Values before their names were still half of all mistakes.
BACKWARDS = replace(
    EXTEND,
    steps=260,
    lr=1.5e-3,
    seed=40,
    tools_share=0.4,
    plain_reply_share=0.6,
    value_first_share=0.5,
    widths=(384, 512, 768, 1024),
)
# Tools of other agents were being forgotten over those of the examples.
ANY_TOOLS = replace(EXTEND, steps=450, lr=1.5e-3, seed=50, tools_share=0.45, value_first_share=0.4, generic_share=0.35)
# One in eight calls of the data analyst's tools was still wrong. This also tells the model to say what it was not told
# instead of calling a tool, which it has not learned.
ACTIONS = replace(
    EXTEND,
    steps=400,
    seed=60,
    action_share=0.7,
    tools_share=0.7,
    value_first_share=0.35,
    unknown_share=0.3,
    widths=(384, 512, 768, 1024),
)
Stages = Mapping[str, tuple[MemoryTrainingOptions, ...]]
REMEMBER: Stages = {
    "msw": (
        MemoryTrainingOptions(steps=500, stop=320, tokens=3072, lr=1e-2),
        MemoryTrainingOptions(steps=650, tokens=4096, lr=5e-3, seed=2, mixed=True),
        MemoryTrainingOptions(steps=250, tokens=4096, lr=2.5e-3, seed=3, mixed=True),
    ),
    "tsw": (
        MemoryTrainingOptions(steps=500, stop=320, tokens=3072, lr=1e-2),
        MemoryTrainingOptions(steps=300, tokens=3072, lr=5e-3, seed=2, mixed=True),
    ),
}
REFINE: Stages = {
    "msw": (MemoryTrainingOptions(steps=220, tokens=4096, lr=4e-3, seed=4, mixed=True),),
    "tsw": (MemoryTrainingOptions(steps=200, tokens=3072, lr=4e-3, seed=4, mixed=True),),
}
SETTLE_IN: Stages = {
    "msw": (
        MemoryTrainingOptions(steps=120, tokens=4096, lr=2.5e-3, seed=5, mixed=True),
        MemoryTrainingOptions(steps=80, tokens=4096, lr=2.5e-3, seed=6, mixed=True, tools_share=0.6),
    ),
    "tsw": (MemoryTrainingOptions(steps=80, tokens=3072, lr=2.5e-3, seed=5, mixed=True),),
    # One write a message does not survive a change of the decoder, so this one begins here.
    "ssw": (
        MemoryTrainingOptions(steps=500, stop=360, tokens=2560, episodes=40, questions=3, lr=1e-2, easy=1.0),
        MemoryTrainingOptions(steps=400, tokens=2560, episodes=24, questions=5, lr=1e-2, seed=2, easy=0.0),
        MemoryTrainingOptions(steps=200, tokens=3072, lr=5e-3, seed=3, mixed=True),
        MemoryTrainingOptions(steps=220, tokens=3072, lr=5e-3, seed=4, mixed=True),
        MemoryTrainingOptions(steps=300, tokens=3072, lr=5e-3, seed=5, mixed=True),
    ),
}
