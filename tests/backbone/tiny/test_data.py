"""The bundled backbone's conversations, tokens and batches."""

import json
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from backbone import ConfigError, recall_probe
from backbone.tiny.actions import ACTIONS
from backbone.tiny.batches import flat_row, turns_of
from backbone.tiny.domain import ATTRIBUTES
from backbone.tiny.episodes import Episode, EpisodeOptions, generate_episode
from backbone.tiny.phrasing import STATEMENTS, UPDATES, answer_text, is_held_out, statement
from backbone.tiny.tokenizer import train_tokenizer

OPTIONS = EpisodeOptions(facts=4, noise=4, queries=4, tools_share=0.5, recalled_share=0.3)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Train a small tokenizer of the bundled kind."""
    return train_tokenizer(seed=1, vocab_size=1024, episodes=100)


def _values_told(episode: Episode) -> dict[str, str]:
    return {name: value for turn in episode.history for name, value in turn.facts}


def test_every_attribute_has_sixteen_values_that_begin_differently() -> None:
    """A value is known by its first word, and there are at least sixteen to choose from."""
    for item in ATTRIBUTES:
        assert len({value.split()[0] for value in item.values}) >= 16, item.names


def test_every_attribute_can_be_said_in_many_ways() -> None:
    """No fact depends on one phrasing."""
    assert all(len(STATEMENTS) * len(item.names) + len(item.statements) >= 20 for item in ATTRIBUTES)


@given(seed=st.integers(0, 10_000), facts=st.integers(1, 16), updates=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_answers_follow_from_the_newest_statement(seed: int, facts: int, updates: float) -> None:
    """What a question expects is the last value told, or that nothing was told."""
    options = EpisodeOptions(facts, 3, 6, update_share=updates, action_share=0.5, tools_share=0.5)
    episode = generate_episode(random.Random(seed), options)
    told = _values_told(episode)

    assert all(query.value == told.get(query.attribute) for query in episode.queries)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_training_never_says_what_is_held_out(seed: int) -> None:
    """A held-out combination of attribute, value and phrasing occurs in no training conversation."""
    episode = generate_episode(random.Random(seed), EpisodeOptions(6, 0, 1, group_share=0.0))
    for turn in episode.history:
        for name, value in turn.facts:
            item = next(a for a in ATTRIBUTES if a.names[0] == name)
            for template in (*STATEMENTS, *UPDATES, *item.statements):
                if is_held_out(name, value, template):
                    said = {template.format(a=alias, v=value).lower() for alias in item.names}
                    assert turn.message["content"].lower() not in said


@pytest.mark.parametrize(("update", "share"), [(False, 347), (True, 282)])
def test_most_values_are_stated_to_measure_recall_as_training_never_stated_them(update: bool, share: int) -> None:
    """The benchmarks page says of how many values this is so, and every value is left a phrasing to learn it from."""
    new = 0
    for item in ATTRIBUTES:
        templates = (*UPDATES, *STATEMENTS[:2]) if update else (*STATEMENTS, *item.statements)
        for value in item.values:
            kept = [template for template in templates if is_held_out(item.names[0], value, template)]
            assert len(kept) < len(templates)
            said = {template.format(a=alias, v=value).lower() for template in kept for alias in item.names}
            new += statement(random.Random(0), item, value, update=update, held_out=True).lower() in said
    assert new == share
    assert f"{share} " in (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text("utf-8")


def test_the_same_seed_gives_the_same_conversation() -> None:
    """Conversations are a function of the seed."""
    first, again, other = (generate_episode(random.Random(seed), OPTIONS) for seed in (3, 3, 4))

    assert first == again
    assert first != other


@given(seed=st.integers(0, 10_000), generic=st.sampled_from([0.0, 1.0]))
@settings(max_examples=40, deadline=None)
def test_rows_are_the_chat_templates_tokens(tokenizer: PreTrainedTokenizerFast, seed: int, generic: float) -> None:
    """The fast path to tokens gives what the chat template gives, so training sees what use sees."""
    episode = generate_episode(random.Random(seed), OPTIONS, generic_share=generic)
    row = flat_row(tokenizer, episode, limit=100_000)
    turns = [*episode.history, *(turn for query in episode.queries for turn in turns_of(query))]
    system = [{"role": "system", "content": episode.system}] if episode.system else []
    text = tokenizer.apply_chat_template(
        [*system, *(turn.message for turn in turns)], tools=list(episode.tools) or None, tokenize=False
    )

    assert row.ids == tokenizer(text, add_special_tokens=False).input_ids
    assert len(row.weights) == len(row.queries) == len(row.messages) == len(row.told) == len(row.ids)


@pytest.mark.parametrize("explained", [0.0, 1.0])
def test_calls_stand_behind_the_fact_that_they_are_made_from(explained: float) -> None:
    """Or alone; what was never told is answered in words, without a call, either way."""
    options = EpisodeOptions(
        4, 0, 8, tools_share=1.0, action_share=1.0, acting_facts=3, unknown_share=0.4, explained_share=explained
    )
    calls = unknown = 0
    for seed in range(30):
        for query in generate_episode(random.Random(seed), options).queries:
            reply = next(turn.message for turn in query.turns if turn.kind == "answer")
            stated = answer_text(query.attribute, query.value)
            if reply.get("tool_calls"):
                calls += 1
                assert query.value in json.dumps(reply["tool_calls"])
                assert reply["content"] == (stated if explained else "")
            else:
                unknown += query.value is None
                assert reply["content"] == stated
    assert calls > 40
    assert unknown > 20


@pytest.mark.parametrize("missing", [0.0, 1.0])
def test_blocks_that_miss_the_question_leave_the_answer_to_the_conversation(missing: float) -> None:
    """What was told is known all the same; what was not is unknown, unless the block says it."""
    options = EpisodeOptions(4, 0, 8, tools_share=0.0, unknown_share=0.5, recalled_share=1.0, missing_share=missing)
    told = held = from_block = 0
    for seed in range(30):
        episode = generate_episode(random.Random(seed), options)
        stated = {name for turn in episode.history for name, _ in turn.facts}
        for query in episode.queries:
            assert query.recalled
            told += query.attribute in stated
            held += f"the {query.attribute} is {query.value}." in query.recalled["content"]
            from_block += query.value is not None and query.attribute not in stated
            assert query.value is not None or query.attribute not in stated
    assert told > 50
    assert (held > 50, from_block > 50) == (missing == 0.0, missing == 0.0)


@pytest.mark.parametrize("quoted", [0.0, 1.0])
@pytest.mark.parametrize("generic", [0.0, 1.0])
def test_blocks_before_unrelated_work_quote_other_work(quoted: float, generic: float) -> None:
    """None of the exchanges or each has one; what was done at the same request before is in some of them, not in all.

    Nothing in a block is what the model learns to say, and none states a fact.
    """
    options = EpisodeOptions(2, 3, 1, tools_share=0.5, quoted_share=quoted)
    blocks = same = 0
    for seed in range(30):
        history = generate_episode(random.Random(seed), options, generic_share=generic).history
        for block, behind in pairwise(history):
            assert (block.kind == "recalled") == (block.message["role"] == "system")
            if block.kind == "recalled":
                blocks += 1
                same += f"user: {behind.message['content'][:20]}" in block.message["content"]
                assert behind.kind == "noise"
                assert behind.message["role"] == "user"
                assert not block.trained
                assert not block.facts
                assert not any(name in block.message["content"] for name in ("Noted: ", "unknown to me"))
    assert blocks == (0 if not quoted else 30 if generic else 90)
    assert bool(same) == bool(quoted)
    assert same < max(1, blocks)


@pytest.mark.parametrize("restated", [0.0, 1.0])
def test_changes_are_announced_or_said_as_if_for_the_first_time(restated: float) -> None:
    """What holds is the newest value either way."""
    options = EpisodeOptions(4, 0, 8, update_share=1.0, group_share=0.0, restated_share=restated)
    announced = changes = 0
    for seed in range(30):
        episode = generate_episode(random.Random(seed), options)
        told: dict[str, str] = {}
        for turn in episode.history:
            for name, value in turn.facts if turn.message["role"] == "user" else ():
                names = next(item.names for item in ATTRIBUTES if item.names[0] == name)
                sayings = {form.format(a=other, v=value).lower() for form in UPDATES for other in names}
                changes += name in told
                announced += turn.message["content"].lower() in sayings
                told[name] = value
        assert all(query.value == told.get(query.attribute) for query in episode.queries)
    assert changes == 120
    assert announced == 0 if restated else announced > 60


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("value_first", [False, True])
def test_a_statement_names_the_value_first_where_it_is_asked_to(*, update: bool, value_first: bool) -> None:
    """A first statement and a changed one; otherwise most name first what it is the value of."""
    item, rng = ATTRIBUTES[0], random.Random(1)
    said = [statement(rng, item, "VALUE", update=update, value_first=value_first) for _ in range(200)]
    first = sum(all(text.index("VALUE") < text.index(name) for name in item.names if name in text) for text in said)

    assert first == 200 if value_first else first < 120


def test_every_action_has_an_attribute() -> None:
    """An action's argument is something that can be told."""
    assert {action.attribute for action in ACTIONS} <= {item.names[0] for item in ATTRIBUTES}


def _probe(seed: int = 0, **changes: object) -> Sequence[object]:
    options = {"facts": 4, "distance": 300, "updates": False, "questions": 4, "never_told": 2, **changes}
    return recall_probe(seed, count_tokens=lambda text: len(text.split()), **options)  # type: ignore[arg-type, return-value]


def test_probe_puts_the_distance_behind_the_last_fact() -> None:
    """The unrelated text behind the facts has at least the tokens that were asked for."""
    probe = recall_probe(
        1, facts=4, distance=300, updates=True, questions=4, never_told=2, count_tokens=lambda text: len(text.split())
    )
    last = max(at for at, message in enumerate(probe.messages) if message["content"] in probe.fact_texts)

    assert sum(len(message["content"].split()) for message in probe.messages[last + 1 :]) >= 300
    assert [question.told for question in probe.questions] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("changes", [{"facts": 0}, {"facts": 24}, {"distance": -1}])
def test_probe_refuses_what_cannot_be(changes: dict[str, int]) -> None:
    """More facts than attributes, or a negative distance, is an error that says so."""
    with pytest.raises(ConfigError):
        _probe(**changes)
