"""Read a conversation once more, and measure what the memory does with each of its messages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from langchain_core.messages import BaseMessage, SystemMessage

from backbone import Backbone, render_prompt
from deltamem_agents.messages import is_written, to_template_message

__all__ = ["GateReading", "read_gates"]

_PASS_TOKENS = 512


@dataclass(frozen=True, slots=True)
class GateReading:
    """Hold what the memory did with one message, mean over the layers; None where there was nothing to measure.

    write_gate: β, 0 to 1. surprise: ‖v - S k‖ / ‖v‖; 0 was known, 1 is new. norm: of the state after the message.
    """

    text: str
    write_gate: float | None
    surprise: float | None
    norm: float | None


def read_gates(backbone: Backbone, messages: Sequence[BaseMessage]) -> Iterator[GateReading]:
    """Yield a reading for each message but system messages, in order, from an empty memory on.

    The messages are read in passes of whole messages, without the tools and recalled blocks that the agent saw, so the
    figures are close to those of the thread itself and not the same. Raises PromptError for content that is not text.
    """
    talk = [message for message in messages if not isinstance(message, SystemMessage)]
    if not talk:
        return
    shaped = [to_template_message(message) for message in talk]
    prompt = render_prompt(backbone.tokenizer, shaped, add_generation_prompt=False)
    model, memory = backbone.model, backbone.model.empty_memory()
    for first, last in _passes(prompt.spans):
        start, stop = prompt.spans[first][0], prompt.spans[last - 1][1]
        numbers = [at for at in range(first, last) for _ in range(*prompt.spans[at])]
        written = [is_written(talk[at]) for at in numbers]
        with torch.inference_mode():
            out = model(
                torch.tensor([prompt.ids[start:stop]], device=model.backbone.device),
                memory=memory,
                write_mask=torch.tensor([written], device=model.backbone.device),
                segment_ids=torch.tensor([numbers], device=model.backbone.device),
                logits_to_keep=1,
                use_cache=False,
                telemetry=True,
            )
        memory = out.memory.closed()
        measured = out.telemetry
        layers = list(measured.layers.values())
        for column, at in enumerate(measured.ids[0].tolist()):
            values = {
                name: torch.stack([getattr(layer, name)[0, column] for layer in layers]).nanmean().item()
                for name in ("write_gate", "surprise", "norm")
            }
            yield GateReading(talk[at].text, *(None if value != value else value for value in values.values()))  # noqa: PLR0124 - NaN


def _passes(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Cut messages into runs [first, last) of at most _PASS_TOKENS tokens, or of one message."""
    first = 0
    for at, (_, end) in enumerate(spans):
        if at > first and end - spans[first][0] > _PASS_TOKENS:
            yield first, at
            first = at
    yield first, len(spans)
