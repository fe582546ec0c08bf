"""Hold the lengths, step sizes and material of the recipe's phases for the backbone and stages for the adapters."""

from collections.abc import Mapping
from dataclasses import replace

from backbone.tiny.lessons import SHOWN, MemoryTrainingOptions
from backbone.tiny.pretrain import PretrainOptions

__all__ = ["LEARN", "POLISH", "PRACTISE", "REMEMBER", "SHARPEN", "Stages"]

LEARN = PretrainOptions()
# Facts that nobody repeats, far back in long conversations; calls that need them; requests for what was never told.
PRACTISE = PretrainOptions(
    steps=2000,
    lr=3e-3,
    seed=10,
    other_weight=0.0,
    action_share=0.5,
    tools_share=0.5,
    plain_reply_share=0.5,
    acting_facts=3,
    value_first_share=0.4,
    unknown_share=0.25,
    update_shares=(0.0, 0.3, 1.0),
    quoted_share=0.25,
    widths=(256, 384, 512, 768, 1024, 1536, 2048),
    curriculum=False,
)

# The same with smaller steps and from farther; calls say what they are made from.
SHARPEN = replace(
    PRACTISE,
    steps=1800,
    lr=2e-3,
    seed=20,
    explained_share=0.85,
    quoted_share=0.1,
    reach=1.4,
    widths=(384, 512, 768, 1024, 1536, 2048, 3072),
)

# What is read wrong longest: values that were named first, and facts that have changed without anybody saying so. Each
# branch gets better at its own and worse at what it sees less of; the mean of the weights keeps what all have learned.
_POLISHED = replace(
    SHARPEN,
    steps=1200,
    lr=1.5e-3,
    seed=30,
    action_share=0.35,
    value_first_share=0.5,
    widths=(384, 512, 768, 1024, 1536),
)
POLISH = (
    _POLISHED,
    replace(_POLISHED, steps=1500, value_first_share=0.4, update_shares=(0.0, 0.5, 1.0), restated_share=0.5),
)

# Facts that change and long conversations are what is misread in the prompt.
_CHANGED = replace(
    SHOWN,
    action_share=0.3,
    value_first_share=0.3,
    generic_share=0.25,
    update_shares=(0.0, 0.3, 1.0),
    restated_share=0.3,
    widths=(512, 768, 1024),
)
_MIXED = MemoryTrainingOptions(mixed=True, in_prompt=0.25, shown=_CHANGED)
_MANY = replace(_MIXED, questions=12, lr=4e-3, facts=(4, 8, 8, 12, 16, 16), unknown_share=0.2)

# Long prompts are what the memory of messages gets in the way of.
_READING = replace(_MIXED, tokens=3072, shown=replace(_CHANGED, widths=(512, 1024, 2048, 3072)))

Stages = Mapping[str, tuple[MemoryTrainingOptions, ...]]
REMEMBER: Stages = {
    "msw": (
        MemoryTrainingOptions(steps=500, stop=320, tokens=3072, lr=1e-2),
        replace(_MIXED, steps=1000, lr=5e-3, seed=2, unknown_share=0.25),
        # As many facts as it can hold, and more.
        replace(_MANY, steps=1000, seed=3),
        # Blocks that recall the wrong passages: the memory answers, or nothing does.
        replace(_MANY, steps=800, seed=4, recalled_share=0.3, missing_share=0.4),
        replace(
            _MANY,
            steps=500,
            lr=3e-3,
            seed=5,
            facts=(4, 8, 12, 16, 16),
            unknown_share=0.25,
            recalled_share=0.25,
            missing_share=0.5,
            averaged=True,
        ),
        replace(
            _MANY,
            steps=500,
            seed=6,
            facts=(8, 12, 16, 16, 16),
            recalled_share=0.3,
            missing_share=0.4,
            averaged=True,
        ),
        replace(
            _MANY,
            steps=500,
            seed=7,
            facts=(4, 8, 12, 16, 16),
            recalled_share=0.45,
            missing_share=0.4,
            averaged=True,
        ),
    ),
    "tsw": (
        MemoryTrainingOptions(steps=500, stop=320, tokens=3072, lr=1e-2),
        replace(_MIXED, steps=600, tokens=3072, lr=5e-3, seed=2, unknown_share=0.25),
        replace(_MANY, steps=600, tokens=3072, seed=3),
        replace(_MANY, steps=400, tokens=3072, lr=3e-3, seed=4, recalled_share=0.3, missing_share=0.4, averaged=True),
    ),
    "ssw": (
        MemoryTrainingOptions(steps=500, stop=360, tokens=2560, episodes=40, questions=3, lr=1e-2, easy=1.0),
        MemoryTrainingOptions(steps=400, tokens=2560, episodes=24, questions=5, lr=1e-2, seed=2, easy=0.0),
        replace(_READING, steps=700, seed=3, unknown_share=0.2),
        replace(_READING, steps=700, lr=4e-3, seed=4),
    ),
}
