"""How adapters of the bundled backbone are taught: where they write, how they start, what is asked of them."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from backbone.adapter.model import MemoryModel, attach_memory
from backbone.tiny import lessons, pretrain, recipe
from backbone.tiny.batches import Batch, Row, add_turns, collate
from backbone.tiny.episodes import Episode, EpisodeOptions, Turn, generate_episode
from backbone.tiny.gates import gate_logits, gate_loss
from backbone.tiny.lessons import SHOWN, WORK_WEIGHT, MemoryTrainingOptions, draw_lesson
from backbone.tiny.memory_start import whitened_start
from backbone.tiny.memory_training import read_and_write, train_memory, write_history
from backbone.tiny.noise import assistant, user
from backbone.tiny.pretrain import read_batch

MODEL = Path(recipe.__file__).parent / "model"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Return the bundled tokenizer."""
    return cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(MODEL))


def new_model(name: str) -> MemoryModel:
    """Return the bundled backbone with an adapter that has learned nothing."""
    frozen = AutoModelForCausalLM.from_pretrained(MODEL)
    return attach_memory(frozen, recipe.ADAPTERS[name], seed=1)


def row_of(tokenizer: PreTrainedTokenizerFast, *turns: Turn) -> Row:
    """Return the tokens of `turns`."""
    row = Row.empty()
    add_turns(row, tokenizer, turns)
    return row


def marked(tokenizer: PreTrainedTokenizerFast, text: str, *facts: tuple[str, str]) -> str:
    """Return the text of the tokens at which a fact of the message counts as complete."""
    row = row_of(tokenizer, Turn(user(text), "fact", facts=facts))
    return str(tokenizer.decode([token for token, told in zip(row.ids, row.told, strict=True) if told == 2]))


@pytest.mark.parametrize(
    ("text", "value", "place"),
    [
        ("The test command is tox -e unit.", "tox -e unit", "tox -e unit"),
        ("bison is the release name of this project.", "bison", "."),
        ("We merge into trunk.", "trunk", "trunk"),
        ("Use 8080 as the port of the service.", "8080", "."),
    ],
)
def test_a_fact_is_complete_where_both_its_parts_are_known(
    tokenizer: PreTrainedTokenizerFast, text: str, value: str, place: str
) -> None:
    """Gates are taught to open at the value, or at the end of a sentence that begins with the value."""
    assert marked(tokenizer, text, ("any", value)).strip() == place


def test_a_plain_reply_tells_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    """A reply that repeats no fact is not a place to write."""
    assert set(row_of(tokenizer, Turn(assistant("Noted."), "fact")).told) == {0}


def naive_gate_means(logits: Tensor, batch: Batch) -> tuple[list[float], list[float]]:
    """Return the gate logits of messages that tell nothing, and of those that tell something."""
    quiet: list[float] = []
    telling: list[float] = []
    for row in range(len(batch.ids)):
        for number in sorted(set(batch.messages[row].tolist()) - {-1}):
            inside = (batch.messages[row] == number) & batch.real[row]
            told = bool((batch.told[row][inside] > 0).any())
            (telling if told else quiet).extend(logits[row, inside].mean(0).tolist())
    return quiet, telling


@pytest.mark.parametrize("name", ["msw", "ssw"])
def test_gate_loss_is_what_its_definition_says(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Quiet places pay for open gates, telling places for shut ones; by token or by message."""
    told = row_of(tokenizer, Turn(user("The release name is bison."), "fact", facts=(("release name", "bison"),)))
    quiet = row_of(tokenizer, Turn(user("Hello there, how are you?"), "noise"), Turn(assistant("Fine."), "noise"))
    batch = collate([told, quiet], tokenizer.pad_token_id)
    model = new_model(name)
    with gate_logits(model) as logits:
        written = (batch.messages >= 0) & batch.real
        messages = batch.messages if name == "ssw" else None
        model.hidden_states(batch.ids, write_mask=written, segment_ids=messages, use_cache=False)

    shut, opened = [], []
    for layer in logits:
        if name == "ssw":
            parts = naive_gate_means(layer, batch)
        else:
            parts = (layer[batch.real & (batch.told < 2)].flatten().tolist(), layer[batch.told == 2].flatten().tolist())
        shut += parts[0]
        opened += parts[1]
    quiet_price = torch.tensor(shut)
    expected = 0.02 * (quiet_price + 8).relu().mean() + quiet_price.sigmoid().mean()
    expected = expected + 0.1 * (-torch.tensor(opened)).relu().mean()
    assert opened
    assert torch.allclose(gate_loss(logits, [batch], model), expected, rtol=1e-4)


def test_whitened_start_tells_messages_apart(tokenizer: PreTrainedTokenizerFast) -> None:
    """Keys of different messages point in different directions, which those of plain random weights do not."""

    def likeness(model: MemoryModel) -> float:
        """Return the mean cosine of the keys of two different messages in the first layer."""
        texts = ("We deploy to fly.", "The currency is euro.", "Ask Heidi for a review.")
        x = []
        module = model.backbone.get_submodule(f"{model.layers[0].name}.q_proj")
        handle = module.register_forward_pre_hook(lambda _, args: x.append(args[0].mean(1)[0]))
        for text in texts:
            ids = torch.tensor([row_of(tokenizer, Turn(user(text), "fact")).ids])
            model.hidden_states(ids, write_mask=torch.zeros_like(ids, dtype=torch.bool), use_cache=False)
        handle.remove()
        keys = (torch.stack(x) @ model.layers[0].memory_k_proj.T).tanh()
        pairs = [cosine_similarity(keys[a], keys[b], dim=0) for a, b in ((0, 1), (0, 2), (1, 2))]
        return float(torch.stack(pairs).mean())

    plain, whitened = new_model("ssw"), new_model("ssw")
    whitened_start(whitened, tokenizer, conversations=60)

    with torch.no_grad():
        assert likeness(whitened) < likeness(plain) - 0.3


def test_where_there_are_tools_actions_find_their_facts() -> None:
    """Enough of the facts in a conversation with tools are such that requests for action depend on them."""
    options = EpisodeOptions(4, 0, 12, tools_share=1.0, action_share=1.0, acting_facts=3, unknown_share=0.0)
    for seed in range(10):
        episode = generate_episode(random.Random(seed), options)
        assert any(turn.message.get("tool_calls") for query in episode.queries for turn in query.turns)


@pytest.mark.parametrize("mixed", [False, True])
def test_training_moves_the_adapter_and_nothing_else(tokenizer: PreTrainedTokenizerFast, *, mixed: bool) -> None:
    """A few steps change every adapter weight that can matter and no weight of the frozen backbone."""
    model = new_model("msw")
    frozen = {name: value.clone() for name, value in model.backbone.named_parameters()}
    before = [value.clone() for layer in model.layers for value in layer.parameters()]
    options = MemoryTrainingOptions(steps=3, tokens=400, episodes=2, questions=2, seed=4, mixed=mixed)
    figures: list[dict[str, float]] = []
    train_memory(model, tokenizer, options, lambda *report: figures.append(report[3]), "test")

    assert all(torch.isfinite(torch.tensor(list(entry.values()))).all() for entry in figures)
    assert all(torch.equal(value, frozen[name]) for name, value in model.backbone.named_parameters())
    after = [value for layer in model.layers for value in layer.parameters()]
    assert not any(torch.equal(new, old) for new, old in zip(after, before, strict=True))


def test_mixed_lessons_take_their_shape_from_the_options(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many facts there are, what is asked though never told, and what blocks hold; each with two values."""
    asked: list[EpisodeOptions] = []

    def noted(rng: random.Random, shape: EpisodeOptions) -> Episode:
        asked.append(shape)
        return generate_episode(rng, shape)

    monkeypatch.setattr(lessons, "generate_episode", noted)
    for facts, share in (((2,), 0.0), ((5, 6), 1.0)):
        asked.clear()
        options = MemoryTrainingOptions(
            steps=3,
            tokens=256,
            mixed=True,
            facts=facts,
            tools_share=share,
            unknown_share=share,
            recalled_share=share,
            missing_share=share,
        )
        train_memory(new_model("tsw"), tokenizer, options, lambda *_: None, "test")
        assert {shape.facts for shape in asked} <= set(facts)
        shares = {
            (shape.tools_share, shape.unknown_share, shape.recalled_share, shape.missing_share) for shape in asked
        }
        assert shares == {(share, share, 0.6 * share, share)}


def test_what_the_model_says_before_a_question_counts_a_little(tokenizer: PreTrainedTokenizerFast) -> None:
    """Newer exchanges stay in the prompt of some mixed lessons; the answer itself counts in full."""
    options = MemoryTrainingOptions(tokens=256, episodes=2, questions=2, mixed=True)
    found = set()
    for seed in range(12):
        questions = draw_lesson(random.Random(seed), tokenizer, options, 0.5).questions
        found |= set(questions.weights.unique().tolist())
        assert (questions.weights[questions.queries >= 0] == 1.0).all()
    assert sorted(found) == pytest.approx([0.0, WORK_WEIGHT, 1.0])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_lessons_with_everything_in_the_prompt_are_as_many_and_as_changed_as_asked(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """None of the mixed lessons keeps the history in the prompt, or all do; none of the facts in it change, or all."""
    dropped: list[EpisodeOptions] = []
    kept: list[EpisodeOptions] = []

    def noting(places: list[EpisodeOptions]) -> Callable[..., Episode]:
        def noted(rng: random.Random, shape: EpisodeOptions, **rest: float) -> Episode:
            places.append(shape)
            return generate_episode(rng, shape, **rest)

        return noted

    monkeypatch.setattr(lessons, "generate_episode", noting(dropped))
    monkeypatch.setattr(pretrain, "generate_episode", noting(kept))
    shown = replace(SHOWN, update_shares=(share,), widths=(256,))
    for in_prompt, noted, others in ((0.0, dropped, kept), (1.0, kept, dropped)):
        dropped.clear()
        kept.clear()
        options = MemoryTrainingOptions(steps=3, tokens=256, mixed=True, in_prompt=in_prompt, shown=shown)
        train_memory(new_model("tsw"), tokenizer, options, lambda *_: None, "test")
        assert noted
        assert not others
    assert {shape.update_share for shape in kept if shape.facts} == {share}


def test_an_averaged_stage_ends_halfway(tokenizer: PreTrainedTokenizerFast) -> None:
    """Its weights are the mean of those it began with and those the same stage ends with otherwise."""
    options = MemoryTrainingOptions(steps=2, tokens=400, episodes=2, questions=2, mixed=True)
    ended = []
    for averaged in (False, True):
        model = train_memory(new_model("tsw"), tokenizer, replace(options, averaged=averaged), lambda *_: None, "test")
        ended.append([value.detach() for layer in model.layers for value in layer.parameters()])
    begun = [value.detach() for layer in new_model("tsw").layers for value in layer.parameters()]
    for start, end, mean in zip(begun, *ended, strict=True):
        torch.testing.assert_close(mean, (start + end) / 2)
    assert any(not torch.equal(start, end) for start, end in zip(begun, ended[0], strict=True))


@pytest.mark.parametrize("reader", ["backbone", "memory"])
def test_what_stands_behind_a_jump_of_positions_sees_what_was_said_before(
    tokenizer: PreTrainedTokenizerFast, reader: str
) -> None:
    """Positions jump so that far ones are trained; a row stays one conversation."""
    model = new_model("tsw")
    told, other = (
        collate([row_of(tokenizer, Turn(user(f"Deploy to {place}. And what is a mutex?"), "fact"))], 0)
        for place in ("fly", "aws")
    )
    assert told.ids.shape == other.ids.shape
    positions = torch.arange(told.ids.shape[1])[None]
    positions[:, -4:] += 900

    def last(batch: Batch) -> Tensor:
        if reader == "backbone":
            return read_batch(model.backbone, batch, positions)[:, -1]
        return read_and_write(model, batch, None, positions).hidden[:, -1]

    with torch.no_grad():
        assert not torch.allclose(last(told), last(other), atol=1e-3)


def test_histories_longer_than_a_window_are_read_in_passes(tokenizer: PreTrainedTokenizerFast) -> None:
    """What a long history leaves is what its passes leave one after the other, each with its own positions."""
    model = new_model("tsw")
    episode = generate_episode(random.Random(1), EpisodeOptions(12, 12, 1, tools_share=0.0))
    row = Row.empty()
    add_turns(row, tokenizer, episode.history)
    batch = collate([row], tokenizer.pad_token_id)
    assert batch.ids.shape[1] > 512
    with torch.no_grad():
        whole = write_history(model, batch)
        first = model.hidden_states(batch.ids[:, :512], use_cache=False).memory
        rest = [model.hidden_states(batch.ids[:, 512:1024], memory=first, use_cache=False).memory]
        for start in range(1024, batch.ids.shape[1], 512):
            part = batch.ids[:, start : start + 512]
            rest.append(model.hidden_states(part, memory=rest[-1], use_cache=False).memory)

    for name, layer in whole.layers.items():
        assert torch.allclose(layer, rest[-1].layers[name], atol=1e-5)
