"""Conversations side by side on one engine."""

from collections.abc import Callable, Generator

import pytest

from backbone import Backbone, MemoryModel
from backbone.engine import Engine
from backbone.generation import Finished, Sampling, TokenPrompt, decode, prefill


def conversation(model: MemoryModel, seed: int) -> Callable[[], Generator[object, None, None]]:
    """Make a job of three turns: the memory goes from turn to turn; tokens and state bytes come out."""

    def steps() -> Generator[object, None, None]:
        memory = model.empty_memory()
        for turn in range(3):
            ids = tuple(10 + (seed * 31 + turn * 7 + n * n) % 300 for n in range(30 + 5 * seed))
            prompt = TokenPrompt(ids, (True,) * len(ids), (2 * turn,) * len(ids))
            prefilled = yield from prefill(model, prompt, memory, piece=8)
            sampling = Sampling(max_tokens=10, temperature=1.0 * (seed % 2), seed=seed)
            reply = decode(model, prefilled, sampling, eos_ids=(), segment_id=2 * turn + 1)
            finished: Finished = yield from reply
            memory = finished.memory
            yield memory.to_bytes()

    return steps


@pytest.mark.parametrize("kind", ["model", "message_model"])
def test_interleaved_conversations_are_what_each_is_alone(kind: str, request: pytest.FixtureRequest) -> None:
    """Conversations side by side on one engine give the tokens and the bytes of state that each gives by itself."""
    model: MemoryModel = request.getfixturevalue(kind)
    engine = Engine(Backbone(model, None))  # type: ignore[arg-type] (no text here)
    alone = [list(engine.submit(conversation(model, seed))) for seed in range(4)]
    together = [engine.submit(conversation(model, seed)) for seed in range(4)]
    assert [list(job) for job in together] == alone
    assert len({bytes(events[-1]) for events in alone if isinstance(events[-1], bytes)}) == 4
    engine.close()
