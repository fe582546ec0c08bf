from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backbone.errors import ConfigError
from backbone.sampling import Sampling, choose, private_generator

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0, 0.0])


def draws(count: int, **options: Any) -> Counter[int]:
    sampling = Sampling(**options)
    generator = private_generator(sampling)
    return Counter(choose(LOGITS, sampling, generator) for _ in range(count))


def test_temperature_zero_takes_the_most_likely_token() -> None:
    """Greedy choice is the argmax and draws no random number."""
    sampling = Sampling(temperature=0.0, seed=1)
    generator = private_generator(sampling)
    before = generator.get_state()
    assert choose(LOGITS, sampling, generator) == 1
    assert torch.equal(before, generator.get_state())


def test_samples_follow_the_softmax() -> None:
    """Frequencies come near the probabilities that the temperature gives."""
    found = draws(4000, temperature=0.7, seed=3)
    for token, probability in enumerate((LOGITS / 0.7).softmax(0)):
        assert found[token] / 4000 == pytest.approx(float(probability), abs=0.03)


def test_top_k_keeps_the_k_most_likely() -> None:
    """With top_k 2 only the two most likely tokens come, both of them."""
    assert set(draws(500, temperature=2.0, top_k=2, seed=0)) == {1, 2}


def test_top_k_above_the_vocabulary_keeps_all() -> None:
    """A top_k larger than the vocabulary changes nothing."""
    assert draws(200, temperature=2.0, top_k=99, seed=0) == draws(200, temperature=2.0, seed=0)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    """Probabilities are .63 .23 .09 .03 .01: top_p .8 keeps two tokens, .9 three, and a tiny one keeps the first."""
    assert set(draws(800, temperature=1.0, top_p=0.8, seed=0)) == {1, 2}
    assert set(draws(800, temperature=1.0, top_p=0.9, seed=0)) == {0, 1, 2}
    assert set(draws(50, temperature=1.0, top_p=1e-9, seed=0)) == {1}


def test_masked_tokens_never_come() -> None:
    """A token of -inf has no chance, at whatever temperature."""
    sampling = Sampling(temperature=50.0, seed=5)
    generator = private_generator(sampling)
    masked = LOGITS.index_fill(0, torch.tensor([1, 4]), -torch.inf)
    assert {choose(masked, sampling, generator) for _ in range(400)} == {0, 2, 3}


def test_tiny_temperature_is_greedy_and_not_a_number() -> None:
    """A temperature near 0 neither overflows nor fails."""
    assert set(draws(20, temperature=1e-30, seed=0)) == {1}


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others() -> None:
    """Seeds decide the draws; without one, two sources differ."""

    def sequence(seed: int | None) -> list[int]:
        sampling = Sampling(temperature=1.5, seed=seed)
        generator = private_generator(sampling)
        return [choose(LOGITS, sampling, generator) for _ in range(60)]

    assert sequence(7) == sequence(7)
    assert sequence(7) != sequence(8)
    assert sequence(None) != sequence(None)


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=30), st.integers(0, 2**63 - 1), st.floats(0.01, 5))
def test_every_choice_is_a_token_and_leaves_the_global_generator_alone(
    logits: list[float], seed: int, temperature: float
) -> None:
    """Any logits give an index of theirs, and torch's global random state does not move."""
    sampling = Sampling(temperature=temperature, top_p=0.9, top_k=5, seed=seed)
    before = torch.random.get_rng_state()
    assert 0 <= choose(torch.tensor(logits), sampling, private_generator(sampling)) < len(logits)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", True),
        ("max_tokens", 2.5),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "hot"),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_k", -1),
        ("top_k", 1.5),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", True),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(option: str, value: object) -> None:
    """Each bad option is a ConfigError that names the option and the value."""
    with pytest.raises(ConfigError, match=f"{option} must be .*got {value!r}"):
        Sampling(**{option: value})
