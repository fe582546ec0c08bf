"""The bundled model is trained on recalled blocks that look as the archive's do."""

import random
import re
from datetime import UTC, datetime

import pytest

from backbone.tiny.domain import ATTRIBUTES
from backbone.tiny.quoting import BLOCK_CLOSING, BLOCK_OPENING, missing_block, recalled_block
from deltamem_agents.recalled import CITATION_DIGITS, Passage, lay_out_block

LINE = re.compile(rf"\[m:([0-9a-f]{{{CITATION_DIGITS}}})\] (\d{{4}}-\d\d-\d\d) (user|agent): (.*(?:\n  .*)*)\n")


def lines_of(text: str) -> list[tuple[str, str, str, str]]:
    """Return citation, date, source and text of each passage of a block, which is nothing but these."""
    body = text.removeprefix(BLOCK_OPENING).removesuffix(BLOCK_CLOSING)
    assert len(body) == len(text) - len(BLOCK_OPENING) - len(BLOCK_CLOSING)
    assert LINE.sub("", body) == ""
    return LINE.findall(body)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_a_block_of_the_training_is_one_of_the_archive(seed: int, missing: bool) -> None:
    """What the archive lays out of the same passages is the same text."""
    rng = random.Random(seed)
    told = rng.choice((None, ATTRIBUTES[3].values[2]))
    name, facts = ATTRIBUTES[3].names[0], {item.names[0]: item.values[1] for item in ATTRIBUTES[:5]}
    message = missing_block(rng, name, facts) if missing else recalled_block(rng, name, told)[0]
    found = lines_of(message["content"])
    passages = []
    for at, (citation, date, source, text) in enumerate(found):
        created = datetime.fromisoformat(date).replace(tzinfo=UTC, second=at)
        passages.append(Passage(f"{at:030}{citation}", text.replace("\n  ", "\n"), source, created, 1.0))
    block = lay_out_block(
        passages,
        query="",
        threshold=0.0,
        budget_tokens=10_000,
        count_tokens=len,
    )
    assert message["role"] == "system"
    assert block.text == message["content"]


@pytest.mark.parametrize("told", [True, False])
def test_the_value_that_is_known_is_the_last_one_stated(told: bool) -> None:
    """Whatever else the block says; where nothing is known, none of the attribute's statements is in it."""
    item = ATTRIBUTES[5]
    for seed in range(200):
        rng = random.Random(seed)
        message, value = recalled_block(rng, item.names[0], item.values[0] if told else None)
        replies = [text for _, _, source, text in lines_of(message["content"]) if source == "agent"]
        stated = re.findall(rf"the {re.escape(item.names[0])} is ([^;]+?)(?:;|\.$)", "\n".join(replies), re.MULTILINE)
        if stated and value is not None:
            assert stated[-1] == value or value in message["content"].split(stated[-1])[-1]
        if value is None:
            assert not stated
        assert value == item.values[0] or not told


def test_a_block_that_misses_the_question_holds_other_facts_of_the_conversation() -> None:
    """Nothing about what is asked, each other fact at most once, and never nothing at all."""
    item, *others = ATTRIBUTES[5:10]
    facts = {one.names[0]: one.values[0] for one in (item, *others)}
    held = set()
    for seed in range(200):
        lines = lines_of(missing_block(random.Random(seed), item.names[0], facts)["content"])
        texts = [text for *_, text in lines]
        assert lines
        assert not any(f"the {item.names[0]} is" in text for text in texts)
        held |= {one.names[0] for one in others if f"Noted: the {one.names[0]} is {one.values[0]}." in texts}
    assert held == {one.names[0] for one in others}
    assert lines_of(missing_block(random.Random(1), item.names[0], {})["content"])
