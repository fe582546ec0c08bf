"""Prompts that are measured while they are read, and memories that fade at marked places."""

from collections.abc import Generator
from typing import Any, TypeVar

import pytest
import torch

from backbone import MemoryModel, MemoryState
from backbone.errors import ConfigError
from backbone.generation import Prefilled, TokenPrompt, prefill
from backbone.prefix_cache import PrefixCache

R = TypeVar("R")
IDS = tuple(range(3, 33))
SEGMENTS = (0,) * 10 + (1,) * 12 + (2,) * 8
PROMPT = TokenPrompt(IDS, (True,) * 30, SEGMENTS, (10, 22))


def run(steps: Generator[Any, None, R]) -> R:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def read(model: MemoryModel, prompt: TokenPrompt, **options: Any) -> Prefilled:
    return run(prefill(model, prompt, None, **options))


def fading(*decays: tuple[int, float]) -> TokenPrompt:
    return TokenPrompt(IDS, (True,) * 30, SEGMENTS, (10, 22), decays)


def bits(state: MemoryState) -> list[torch.Tensor]:
    return list(state.closed().layers.values())


@pytest.mark.parametrize("granularity", ["token", "message"])
def test_measuring_reads_the_figures_of_the_model_and_changes_nothing(granularity: str, request: Any) -> None:
    """Surprise and gate of each piece are those of the model's own pass; logits and memory keep their bits."""
    model: MemoryModel = request.getfixturevalue("model" if granularity == "token" else "message_model")
    plain, measured = read(model, PROMPT), read(model, PROMPT, measure_from=10)
    assert plain.logits is not None
    assert measured.logits is not None
    assert torch.equal(plain.logits, measured.logits)
    assert all(torch.equal(a, b) for a, b in zip(bits(plain.memory), bits(measured.memory), strict=True))
    assert [(begin, end) for begin, end, _ in measured.telemetry] == [(10, 22), (22, 30)]
    with torch.no_grad():
        options: dict[str, Any] = {"segment_ids": torch.tensor([SEGMENTS])}
        whole = model(torch.tensor([IDS]), telemetry=True, **options).telemetry
    assert whole is not None
    for place, (_, _, part) in enumerate(measured.telemetry, 1):
        column = 0 if granularity == "token" or place == 2 else -1
        for name, layer in whole.layers.items():
            for figure in ("surprise", "write_gate"):
                expected = getattr(layer, figure)[0, place]
                found = getattr(part.layers[name], figure)[0]
                torch.testing.assert_close(found[column], expected, rtol=1e-4, atol=1e-5)


def test_what_is_measured_is_computed_whatever_the_cache_has(model: MemoryModel) -> None:
    """The figures of a warm prompt are those of the cold one, and only what comes before is taken from the cache."""
    cache = PrefixCache(2**24)
    cold = read(model, PROMPT, measure_from=10, cache=cache, need_logits=False)
    assert read(model, PROMPT, cache=cache, need_logits=False).cached_tokens == 30
    warm = read(model, PROMPT, measure_from=10, cache=cache, need_logits=False)
    assert (cold.cached_tokens, warm.cached_tokens) == (0, 10)
    for (*_, one), (*_, other) in zip(cold.telemetry, warm.telemetry, strict=True):
        assert all(torch.equal(one.layers[name].surprise, other.layers[name].surprise) for name in one.layers)


def test_a_memory_fades_before_the_marked_token(model: MemoryModel) -> None:
    """The state is scaled there, and nowhere else: as in passes of one's own over one key-value cache."""
    with torch.no_grad():
        first = model(torch.tensor([IDS[:10]]))
        rest = model(torch.tensor([IDS[10:]]), past_key_values=first.past_key_values, memory=first.memory.decay(0.25))
    found = read(model, fading((10, 0.25)))
    for one, other in zip(bits(rest.memory), bits(found.memory), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(a, b) for a, b in zip(bits(read(model, PROMPT).memory), bits(found.memory), strict=True))


def test_faded_pages_are_pages_of_their_own(model: MemoryModel) -> None:
    """What was read without fading is found up to the mark, and a warm prompt gives the cold one's bits."""
    cache = PrefixCache(2**24)
    read(model, PROMPT, cache=cache)
    cold = read(model, fading((10, 0.5)))
    part = read(model, fading((10, 0.5)), cache=cache)
    whole = read(model, fading((10, 0.5)), cache=cache)
    assert (part.cached_tokens, whole.cached_tokens) == (10, 22)
    for warm in (part, whole):
        assert all(torch.equal(a, b) for a, b in zip(bits(cold.memory), bits(warm.memory), strict=True))


@pytest.mark.parametrize("decays", [((5, 0.5),), ((10, 1.5),)])
def test_fading_elsewhere_than_at_a_cut_or_by_no_share_is_refused(decays: tuple[tuple[int, float], ...]) -> None:
    """The error names the places and the range."""
    with pytest.raises(ConfigError, match="decays are factors from 0 to 1 at 0 or at a cut"):
        fading(*decays)
