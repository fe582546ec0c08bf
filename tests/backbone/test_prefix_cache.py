import logging
from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import DynamicCache, Gemma3ForCausalLM, Gemma3TextConfig, StaticCache

from backbone import DeltaMemConfig, MemoryModel, MemoryState, PrefixCache, Sampling, attach_memory, decode, prefill
from backbone.engine import Engine
from backbone.errors import ConfigError
from backbone.generation import Prefilled
from backbone.loading import Backbone
from backbone.prefix_cache import prefix_keys
from backbone.token_prompt import TokenPrompt

R = TypeVar("R")
PIECE = 6
PLENTY = 10**9


@pytest.fixture(scope="module")
def sliding_model() -> MemoryModel:
    """Return a model in which every other layer sees 4 tokens only, fewer than a piece has."""
    config = Gemma3TextConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, sliding_window=4, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = attach_memory(Gemma3ForCausalLM(config).eval(), DeltaMemConfig(), seed=0)
    for parameter in model.memory_layers.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.refresh_fingerprint()
    return model


@pytest.fixture(scope="module")
def states_model(model: MemoryModel) -> MemoryModel:
    """Return a model with four states in each layer."""
    fresh = type(model.backbone)(model.backbone.config).eval()
    several = attach_memory(fresh, DeltaMemConfig(num_states=4), seed=0)
    for parameter in several.memory_layers.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    several.refresh_fingerprint()
    return several


def run(steps: Generator[Any, None, R]) -> R:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def read(model: MemoryModel, prompt: TokenPrompt, memory: MemoryState | None = None, **options: Any) -> Prefilled:
    return run(prefill(model, prompt, memory, **{"piece": PIECE, **options}))


def prompt_of(parts: Sequence[Sequence[int]], *, first: int = 0, unwritten: Sequence[int] = ()) -> TokenPrompt:
    """Join parts, each of them a message with a cut behind it; those numbered in `unwritten` are only read."""
    ids = [token for part in parts for token in part]
    numbers = [number for number, part in enumerate(parts) for _ in part]
    ends = [sum(map(len, parts[: count + 1])) for count in range(len(parts) - 1)]
    writes = tuple(number not in unwritten for number in numbers)
    segments = tuple(first + number if write else -1 for number, write in zip(numbers, writes, strict=True))
    return TokenPrompt(tuple(ids), writes, segments, tuple(ends))


def tensors_of(found: Prefilled) -> list[Tensor]:
    """Give every number of a result: logits, memories with their open messages, keys and values."""
    tensors = [] if found.logits is None else [found.logits]
    for memory in (found.memory, *found.states_at):
        tensors += memory.layers.values()
        if memory.open_segment is not None:
            opened = memory.open_segment
            tensors += [opened.ids, opened.counts, *opened.sums.values(), *opened.before.values()]
    if found.past_key_values is not None:
        for layer in found.past_key_values.layers:
            tensors += [layer.keys, layer.values]
    return tensors


def assert_same_bits(one: Prefilled, other: Prefilled) -> None:
    mine, theirs = tensors_of(one), tensors_of(other)
    assert len(mine) == len(theirs)
    for left, right in zip(mine, theirs, strict=True):
        assert torch.equal(left, right)


def passes_of(model: MemoryModel, action: Any) -> list[int]:
    """Return how many tokens went through the decoder in each pass of an action."""
    lengths: list[int] = []

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        lengths.append(kwargs["input_ids"].shape[1])

    hook = model.backbone.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
    try:
        action()
    finally:
        hook.remove()
    return lengths


PARTS = st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=9), min_size=1, max_size=5)


@st.composite
def asked(draw: st.DrawFn) -> tuple[TokenPrompt, int, dict[str, Any]]:
    """Draw a prompt over few tokens, so that prompts share beginnings; the number of its memory; options."""
    parts = draw(PARTS)
    prompt = prompt_of(parts, first=draw(st.integers(0, 3)), unwritten=draw(st.sets(st.integers(0, 4), max_size=2)))
    positions = draw(st.lists(st.integers(0, len(prompt.ids)), max_size=2))
    return prompt, draw(st.integers(0, 2)), {"need_logits": draw(st.booleans()), "state_positions": positions}


@given(script=st.lists(asked(), min_size=2, max_size=8), max_bytes=st.sampled_from([1, 9_000, 30_000, PLENTY]))
@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize("kind", ["model", "states_model", "message_model", "sliding_model"])
def test_a_cached_prompt_is_bit_for_bit_a_cold_one(
    kind: str, request: pytest.FixtureRequest, script: list[tuple[TokenPrompt, int, dict[str, Any]]], max_bytes: int
) -> None:
    """Whatever was read before, from whatever memories and with however little room, nothing in the result differs."""
    model: MemoryModel = request.getfixturevalue(kind)
    opened = read(model, prompt_of([[7, 8, 9]])).memory
    memories = [None, opened, opened.closed()]
    cache = PrefixCache(max_bytes)
    for prompt, memory, options in script:
        cold = read(model, prompt, memories[memory], **options)
        assert_same_bits(read(model, prompt, memories[memory], cache=cache, **options), cold)
        assert cache.size <= max_bytes


@pytest.mark.parametrize("kind", ["model", "states_model", "message_model", "sliding_model"])
def test_only_what_is_new_goes_through_the_model(kind: str, request: pytest.FixtureRequest) -> None:
    """A longer prompt costs its new tokens, a fork those after the fork, and a memory alone that is known nothing."""
    model: MemoryModel = request.getfixturevalue(kind)
    cache = PrefixCache(PLENTY)
    begun, more, other = [[3] * 5, [4] * 9], [[5] * 4, [6] * 2], [[9] * 4, [6] * 2]
    assert passes_of(model, lambda: read(model, prompt_of([*begun, [1]]), cache=cache)) == [5, 6, 3, 1]
    assert passes_of(model, lambda: read(model, prompt_of([*begun, *more, [1]]), cache=cache)) == [4, 2, 1]
    assert passes_of(model, lambda: read(model, prompt_of([*begun, *other, [1]]), cache=cache)) == [4, 2, 1]
    assert passes_of(model, lambda: read(model, prompt_of([*begun, *more, [2]]), cache=cache)) == [1]
    again = read(model, prompt_of([*begun, *more, [2]]), cache=cache)
    assert again.cached_tokens == 20
    assert passes_of(model, lambda: read(model, prompt_of(begun), cache=cache, need_logits=False)) == []


@pytest.mark.parametrize("first", [1, 7])
def test_a_message_goes_on_whatever_its_number(message_model: MemoryModel, first: int) -> None:
    """A prompt that is resumed inside a message under another number still writes that message once, as a whole."""
    cache = PrefixCache(PLENTY)
    read(message_model, prompt_of([[3] * 5, [4] * 9]), cache=cache)
    longer = prompt_of([[3] * 5, [4] * 20], first=first)
    warm = read(message_model, longer, cache=cache)
    assert warm.cached_tokens == 11
    assert_same_bits(warm, read(message_model, longer))


def test_any_difference_before_a_token_makes_it_another(message_model: MemoryModel) -> None:
    """Tokens, what is written, where messages and pieces begin, and the state count; the numbers of messages do not."""
    parts, states = [[3, 4], [5, 6], [7]], [message_model.empty_memory()]
    states.append(read(message_model, prompt_of([[8, 9]])).memory)
    states.append(states[1].closed())
    split, whole = prompt_of(parts), TokenPrompt((3, 4, 5, 6, 7), (True,) * 5, (0, 0, 1, 1, 2))
    different = [
        (split, states[0]),
        (prompt_of([[3, 3], *parts[1:]]), states[0]),
        (prompt_of(parts, unwritten=[0]), states[0]),
        (prompt_of([[3, 4, 5, 6], [7]]), states[0]),
        (whole, states[0]),
        (split, states[1]),
        (split, states[2]),
        (prompt_of(parts, first=1), states[1]),
    ]
    keys = [prefix_keys(p, p.piece_ends(PIECE), state, by_message=True)[-1] for p, state in different]
    assert len(set(keys)) == len(different)
    renumbered = prompt_of(parts, first=40)
    ends = split.piece_ends(PIECE)
    assert prefix_keys(renumbered, ends, states[2], by_message=True) == prefix_keys(
        split, ends, states[2], by_message=True
    )
    one_message = TokenPrompt(split.ids, split.write_mask, (0,) * 5, split.cuts)
    assert prefix_keys(one_message, ends, states[0], by_message=False) == prefix_keys(
        split, ends, states[0], by_message=False
    )


def test_pages_are_never_changed(model: MemoryModel) -> None:
    """Going on from a page, by reading or by writing a reply, leaves every number of it alone."""
    cache = PrefixCache(PLENTY)
    keys = prefix_keys(
        prompt := prompt_of([[3] * 5, [4]]), prompt.piece_ends(PIECE), model.empty_memory(), by_message=False
    )
    read(model, prompt, cache=cache)
    [page] = cache.find(keys)
    kept = [tensor.clone() for pair in page.layers for tensor in pair] + [
        t.clone() for t in page.memory.layers.values()
    ]
    run(decode(model, read(model, prompt, cache=cache), Sampling(max_tokens=5), eos_ids=()))
    read(model, prompt_of([[3] * 5, [6] * 9]), cache=cache)
    assert cache.find(keys) == [page]
    now = [tensor for pair in page.layers for tensor in pair] + list(page.memory.layers.values())
    assert all(torch.equal(one, other) for one, other in zip(kept, now, strict=True))


@given(order=st.lists(st.integers(0, 3), min_size=1, max_size=14), room=st.integers(1, 6))
@settings(max_examples=10, deadline=None)
def test_what_was_used_least_recently_goes_first(model: MemoryModel, order: list[int], room: int) -> None:
    """The newest threads are found whole, as many as there is room for, and no page is left without its beginning."""
    probe = PrefixCache(PLENTY)
    read(model, prompt_of([[3] * 5, [4] * 5, [1]]), cache=probe)
    page = probe.size // len(probe)
    cache = PrefixCache(room * page)
    for thread in order:
        read(model, prompt_of([[10 + thread] * 5, [4] * 5, [1]]), cache=cache)
    assert len(cache) == cache.size // page <= room
    recent = list(dict.fromkeys(reversed(order)))
    for place, thread in enumerate(recent):
        prompt = prompt_of([[10 + thread] * 5, [4] * 5, [1]])
        known = cache.find(prefix_keys(prompt, prompt.piece_ends(PIECE), model.empty_memory(), by_message=False))
        assert len(known) == min(2, max(0, room - 2 * place))


def test_a_prompt_larger_than_the_room_keeps_its_beginning(model: MemoryModel) -> None:
    """What does not fit beside its own beginning pushes nothing out."""
    probe = PrefixCache(PLENTY)
    parts = [[3] * 5, [4] * 5, [5] * 5, [1]]
    read(model, prompt_of(parts), cache=probe)
    cache = PrefixCache(probe.size * 2 // 3)
    for _ in range(2):
        found = read(model, prompt_of(parts), cache=cache)
    assert found.cached_tokens == 10


def test_a_kind_of_key_value_cache_that_cannot_be_cut_is_said_once(
    model: MemoryModel, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is kept, the log says why once, and dynamic caches after it are kept as ever."""
    cache, memory = PrefixCache(PLENTY), model.empty_memory()
    other = StaticCache(config=model.backbone.config, max_cache_len=8)
    with caplog.at_level(logging.WARNING, "backbone.prefix_cache"):
        for key in (b"one", b"two"):
            cache.store([key], other, 4, memory)
    assert len(cache) == 0
    assert [record.getMessage() for record in caplog.records] == [
        "the prefix cache stays empty: this model keeps StaticLayer, which cannot be cut"
    ]
    plain = DynamicCache(config=model.backbone.config)
    for layer, _ in enumerate(plain.layers):
        plain.update(torch.ones(1, 1, 4, 16), torch.ones(1, 1, 4, 16), layer)
    cache.store([b"one"], plain, 4, memory)
    assert len(cache) == 1


def test_an_engine_has_one_cache_of_each_size_and_none_of_size_0(model: MemoryModel) -> None:
    """Equal sizes share, other sizes count apart, and a closed engine has dropped what it kept."""
    engine = Engine(Backbone(model, None))  # type: ignore[arg-type] (no text here)
    cache = engine.prefix_cache(PLENTY)
    assert cache is not None
    assert engine.prefix_cache(PLENTY) is cache
    assert engine.prefix_cache(5) is not cache
    assert engine.prefix_cache(0) is None
    engine.close()
    assert engine.prefix_cache(PLENTY) is not cache


def test_pieces_end_at_cuts_and_between_them_at_their_largest_size() -> None:
    """Tokens before a cut do not move what comes after it."""
    prompt = TokenPrompt(tuple(range(20)), (True,) * 20, None, (3, 16))
    assert prompt.piece_ends(6) == (3, 9, 15, 16, 20)
    assert all(end - begin <= 6 for begin, end in pairwise((0, *prompt.piece_ends(6))))


@pytest.mark.parametrize("cuts", [(0,), (2,), (1, 1), (3,)])
def test_cuts_outside_the_prompt_or_out_of_order_are_refused(cuts: tuple[int, ...]) -> None:
    """A cut lies between two tokens, and each behind the one before."""
    with pytest.raises(ConfigError, match="cuts must increase"):
        TokenPrompt((1, 2), (True, True), None, cuts)


@pytest.mark.parametrize("max_bytes", [0, -1])
def test_a_cache_without_room_is_refused(max_bytes: int) -> None:
    """A size below one byte is a mistake; an engine gives no cache for 0."""
    with pytest.raises(ConfigError, match="at least 1"):
        PrefixCache(max_bytes)
