from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from backbone import MemoryModel, MemoryState
from backbone.errors import ConfigError
from backbone.generation import Finished, Prefilled, Sampling, TokenPrompt, decode, prefill

R = TypeVar("R")

IDS = tuple(range(3, 40))
NO_END: frozenset[int] = frozenset()


def prompt_of(ids: tuple[int, ...], *, segment: int = 0, write: bool = True) -> TokenPrompt:
    return TokenPrompt(ids, (write,) * len(ids), (segment,) * len(ids))


def run(steps: Generator[Any, None, R]) -> R:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def read(model: MemoryModel, prompt: TokenPrompt, memory: MemoryState | None = None, **options: Any) -> Prefilled:
    return run(prefill(model, prompt, memory, **options))


def write_reply(
    model: MemoryModel, prompt: TokenPrompt, sampling: Sampling, **options: Any
) -> tuple[list[int], Finished]:
    steps = decode(model, read(model, prompt), sampling, **{"eos_ids": NO_END, "segment_id": 9, **options})
    ids = []
    while True:
        try:
            ids.append(next(steps))
        except StopIteration as end:
            return ids, end.value


def assert_same_state(one: MemoryState, other: MemoryState) -> None:
    for name, tensor in one.layers.items():
        torch.testing.assert_close(tensor, other.layers[name], rtol=1e-4, atol=1e-5)


@contextmanager
def head_rows(model: MemoryModel) -> Iterator[list[int]]:
    """Note how many rows of logits each pass computes."""
    rows: list[int] = []

    def note(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows.append(inputs[0][..., 0].numel())

    hook = model.backbone.lm_head.register_forward_pre_hook(note)
    try:
        yield rows
    finally:
        hook.remove()


class CountedTensors(TorchDispatchMode):
    """Count the tensors that a program makes of Python's numbers, each of which is copied to the device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        self.count += func is torch.ops.aten.lift_fresh.default
        return func(*args, **(kwargs or {}))


class Only:
    """Allow some tokens, and be done after a few (a Constraint)."""

    def __init__(self, allowed: list[int], limit: int) -> None:
        self.allowed, self.limit = allowed, limit
        self.accepted: list[int] = []

    @property
    def done(self) -> bool:
        """Tell whether enough tokens came."""
        return len(self.accepted) >= self.limit

    def mask(self, logits: Tensor) -> Tensor:
        """Leave the allowed tokens."""
        keep = torch.zeros_like(logits, dtype=torch.bool)
        keep[self.allowed] = True
        return logits.masked_fill(~keep, -torch.inf)

    def accept(self, token_id: int) -> None:
        """Count a token."""
        self.accepted.append(token_id)


def test_greedy_decoding_is_the_argmax_of_full_passes(model: MemoryModel) -> None:
    """Each token is the most likely one of a pass over everything before it, without any cache."""
    found, finished = write_reply(model, prompt_of(IDS), Sampling(max_tokens=6))
    expected = list(IDS)
    for _ in range(6):
        expected.append(int(model(torch.tensor([expected])).logits[0, -1].argmax()))
    assert found == expected[len(IDS) :]
    assert finished.reason == "length"


@given(piece=st.integers(1, 40), positions=st.lists(st.integers(0, len(IDS)), max_size=5))
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("kind", ["model", "message_model"])
def test_any_piece_size_gives_the_same_states_and_logits(
    kind: str, request: pytest.FixtureRequest, piece: int, positions: list[int]
) -> None:
    """However the prompt is cut, memory, logits and the states at any positions are those of one pass."""
    model: MemoryModel = request.getfixturevalue(kind)
    segments = tuple(n // 7 for n in range(len(IDS)))
    prompt = TokenPrompt(IDS, tuple(n % 5 != 0 for n in range(len(IDS))), segments)
    whole = read(model, prompt, state_positions=positions)
    cut = read(model, prompt, state_positions=positions, piece=piece)
    assert_same_state(whole.memory, cut.memory)
    assert whole.logits is not None
    assert cut.logits is not None
    torch.testing.assert_close(whole.logits, cut.logits, rtol=1e-4, atol=1e-5)
    assert len(cut.states_at) == len(positions)
    for one, other in zip(whole.states_at, cut.states_at, strict=True):
        assert_same_state(one, other)


@pytest.mark.parametrize("piece", [1, 8, 512])
def test_a_state_position_is_the_memory_after_so_many_tokens(model: MemoryModel, piece: int) -> None:
    """Position n is what a prompt of the first n tokens leaves behind, and 0 the memory handed in."""
    before = read(model, prompt_of((50, 51, 52))).memory
    found = read(model, prompt_of(IDS), before, state_positions=(16, 0, len(IDS)), piece=piece)
    at_16, at_0, at_end = found.states_at
    assert_same_state(at_16, read(model, prompt_of(IDS[:16]), before).memory)
    assert at_0.to_bytes() == before.to_bytes()
    assert_same_state(at_end, found.memory)


def test_the_first_piece_starts_from_the_memory_handed_in(model: MemoryModel) -> None:
    """Another memory gives other logits, and None is the empty one."""
    memory = read(model, prompt_of((60, 61, 62, 63))).memory
    with_memory = read(model, prompt_of(IDS), memory).logits
    without = read(model, prompt_of(IDS)).logits
    empty = read(model, prompt_of(IDS), model.empty_memory()).logits
    assert with_memory is not None
    assert without is not None
    assert not torch.allclose(with_memory, without)
    assert torch.equal(without, empty)


def test_logits_that_nobody_reads_are_never_computed(model: MemoryModel) -> None:
    """A prompt costs one row of logits, absorbing none, and a reply one for each token but the last."""
    with head_rows(model) as rows:
        read(model, prompt_of(IDS), piece=8, need_logits=False)
        assert rows == []
        prefilled = read(model, prompt_of(IDS), piece=8)
        assert rows == [1]
        run(decode(model, prefilled, Sampling(max_tokens=4), eos_ids=NO_END))
        assert rows == [1, 1, 1, 1]


def test_a_step_is_one_pass_at_most(model: MemoryModel) -> None:
    """Neither a piece of the prompt nor a token takes more than one forward pass before the next yield."""
    passes: list[int] = []
    hook = model.backbone.get_decoder().register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        steps = prefill(model, prompt_of(IDS), None, piece=10)
        for expected in (1, 2, 3):
            next(steps)
            assert len(passes) == expected
        prefilled = run(steps)
        assert len(passes) == 4
        reply = decode(model, prefilled, Sampling(max_tokens=3), eos_ids=NO_END)
        for expected in (4, 5, 6):
            next(reply)
            assert len(passes) == expected
    finally:
        hook.remove()


def test_an_end_token_ends_the_reply_unseen(model: MemoryModel) -> None:
    """The end token is not yielded and not written."""
    free, _ = write_reply(model, prompt_of(IDS), Sampling(max_tokens=6))
    end = free[3]
    found, finished = write_reply(model, prompt_of(IDS), Sampling(max_tokens=6), eos_ids={end})
    assert found == free[: free.index(end)]
    assert finished.reason == "stop"
    assert_same_state(finished.memory, read(model, prompt_of((*IDS, *found))).memory)


@pytest.mark.parametrize("kind", ["model", "message_model"])
@pytest.mark.parametrize("constrained", [False, True])
def test_the_memory_after_a_reply_holds_all_of_it(kind: str, constrained: bool, request: pytest.FixtureRequest) -> None:
    """The memory is that of one pass over prompt and reply, the reply being a message of its own."""
    model: MemoryModel = request.getfixturevalue(kind)
    constraint = Only(list(range(90)), 5) if constrained else None
    found, finished = write_reply(model, prompt_of(IDS), Sampling(max_tokens=9), constraint=constraint)
    assert len(found) == (5 if constrained else 9)
    whole = TokenPrompt((*IDS, *found), (True,) * (len(IDS) + len(found)), (0,) * len(IDS) + (9,) * len(found))
    assert_same_state(finished.memory, read(model, whole).memory)


@pytest.mark.parametrize("kind", ["model", "message_model"])
def test_a_reply_that_is_not_written_leaves_the_memory_alone(kind: str, request: pytest.FixtureRequest) -> None:
    """With write False the memory after the reply is the one before it."""
    model: MemoryModel = request.getfixturevalue(kind)
    prefilled = read(model, prompt_of(IDS))
    finished = run(decode(model, prefilled, Sampling(max_tokens=4), eos_ids=NO_END, write=False))
    assert_same_state(finished.memory, prefilled.memory)
    written = run(decode(model, read(model, prompt_of(IDS)), Sampling(max_tokens=4), eos_ids=NO_END, segment_id=9))
    with pytest.raises(AssertionError):
        assert_same_state(finished.memory, written.memory)


def test_unwritten_prompt_tokens_leave_the_memory_alone(model: MemoryModel) -> None:
    """A prompt that only reads gives back the memory it was given."""
    memory = read(model, prompt_of((60, 61))).memory
    assert read(model, prompt_of(IDS, write=False), memory).memory.to_bytes() == memory.to_bytes()


def test_a_constraint_decides_what_may_come(model: MemoryModel) -> None:
    """Only allowed tokens come, each is reported to the constraint, and a constraint that is done ends the reply."""
    constraint = Only([70, 71, 72], 4)
    found, finished = write_reply(model, prompt_of(IDS), Sampling(max_tokens=20), constraint=constraint)
    assert found == constraint.accepted
    assert set(found) <= {70, 71, 72}
    assert len(found) == 4
    assert finished.reason == "stop"


def test_sampling_repeats_with_its_seed_and_greedy_ignores_it(model: MemoryModel) -> None:
    """The same seed gives the same reply, another seed another one; greedy is the same with any."""

    def reply(**options: Any) -> list[int]:
        return write_reply(model, prompt_of(IDS), Sampling(max_tokens=12, **options))[0]

    assert reply(temperature=1.5, seed=4) == reply(temperature=1.5, seed=4)
    assert reply(temperature=1.5, seed=4) != reply(temperature=1.5, seed=5)
    assert reply(seed=4) == reply(seed=5) == reply(temperature=1.5, top_k=1, seed=4)


def test_no_gradients_are_kept_and_the_callers_mode_does_not_change(model: MemoryModel) -> None:
    """Nothing of the result hangs on a graph, and between steps gradients are as the caller left them."""
    steps = prefill(model, prompt_of(IDS), None, piece=10)
    next(steps)
    assert torch.is_grad_enabled()
    prefilled = run(steps)
    assert prefilled.logits is not None
    assert not prefilled.logits.requires_grad
    assert not any(tensor.requires_grad for tensor in prefilled.memory.layers.values())


@pytest.mark.parametrize("fixture", ["model", "message_model"])
def test_a_token_takes_one_copy_to_the_device(fixture: str, request: pytest.FixtureRequest) -> None:
    """Of each further token of a reply only the token itself is sent, also where a message is written."""
    model = request.getfixturevalue(fixture)

    def copies(tokens: int) -> int:
        prefilled = read(model, prompt_of(IDS))
        with CountedTensors() as counted:
            run(decode(model, prefilled, Sampling(max_tokens=tokens), eos_ids=NO_END, segment_id=9))
        return counted.count

    assert copies(7) - copies(2) == 5


BAD_CALLS: dict[str, tuple[str, Callable[[MemoryModel], object]]] = {
    "no tokens": ("no tokens", lambda _: TokenPrompt((), ())),
    "short mask": ("write_mask .* 2, got 1", lambda _: TokenPrompt((1, 2), (True,))),
    "short segments": ("segment_ids .* 2, got 1", lambda _: TokenPrompt((1, 2), (True, True), (0,))),
    "piece 0": ("piece must be .* got 0", lambda m: read(m, prompt_of(IDS), piece=0)),
    "position behind the end": ("from 0 to 37", lambda m: read(m, prompt_of(IDS), state_positions=(38,))),
    "negative position": ("from 0 to 37", lambda m: read(m, prompt_of(IDS), state_positions=(-1,))),
    "no logits": (
        "need_logits=True",
        lambda m: run(decode(m, read(m, prompt_of(IDS), need_logits=False), Sampling(), eos_ids=NO_END)),
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_what_cannot_work_is_refused(case: str, model: MemoryModel) -> None:
    """Each mistake is a ConfigError that says what was expected."""
    message, call = BAD_CALLS[case]
    with pytest.raises(ConfigError, match=message):
        call(model)


def test_an_adapter_that_writes_by_message_needs_the_replys_segment(message_model: MemoryModel) -> None:
    """Without a segment_id a written reply is refused, for nobody could tell where the message ends."""
    with pytest.raises(ConfigError, match="segment_id"):
        write_reply(message_model, prompt_of(IDS), Sampling(max_tokens=1), segment_id=None)
