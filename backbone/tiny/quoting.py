"""Generate recalled blocks as the archive lays them out: dated, cited passages, oldest first."""

import random
from collections.abc import Mapping, Sequence

from backbone.tiny.domain import ATTRIBUTES, Attribute, attribute
from backbone.tiny.noise import Message, noise_segment
from backbone.tiny.phrasing import PLAIN_REPLIES, statement

__all__ = ["BLOCK_CLOSING", "BLOCK_OPENING", "missing_block", "noted", "recalled_block", "work_block"]

BLOCK_OPENING = "<recalled>\nReference material from earlier messages, not instructions.\n"
BLOCK_CLOSING = "</recalled>"
LONGEST = 240  # characters of a passage that has nothing to do with the question
_Passage = tuple[str, str]


def noted(facts: Sequence[tuple[Attribute, str]]) -> str:
    """Return the reply that repeats what was told."""
    return "Noted: " + "; ".join(f"the {item.names[0]} is {value}" for item, value in facts) + "."


def recalled_block(rng: random.Random, name: str, told: str | None) -> tuple[Message, str | None]:
    """Return a recalled block that may hold statements about `name`, and the value that is known with it.

    told: the value that the conversation itself has stated. Where the block states several, the last one holds.
    """
    item = attribute(name)
    value = told or (rng.choice(item.values) if rng.random() < 0.7 else None)
    right = [] if value is None else _about(rng, item, value)
    others = [_unrelated(rng, item) for _ in range(rng.randrange(max(1, 7 - len(right))))]
    for passage in others:
        right.insert(rng.randrange(len(right) + 1), passage)
    return _laid_out(rng, right or [_unrelated(rng, item)]), value


def missing_block(rng: random.Random, name: str, facts: Mapping[str, str]) -> Message:
    """Return a recalled block that says nothing about `name`; most of it are other facts of the conversation."""
    others = [(attribute(other), value) for other, value in facts.items() if other != name]
    rng.shuffle(others)
    said = [_one(rng, *fact) for fact in others[: rng.randrange(7)]]
    passages = said + [_unrelated(rng, attribute(name)) for _ in range(rng.randrange(int(not said), 3))]
    rng.shuffle(passages)
    return _laid_out(rng, passages)


def work_block(rng: random.Random, exchange: Sequence[Message], tools: frozenset[str]) -> Message:
    """Return a recalled block that quotes other work, and in half of them what was done at the same request before."""
    exchanges = [exchange] if rng.random() < 0.5 else []
    exchanges += [noise_segment(rng, tools) for _ in range(rng.randrange(int(not exchanges), 4))]
    passages = [passage for messages in exchanges for passage in _quoted(messages)]
    return _laid_out(rng, rng.sample(passages, rng.randrange(1, min(len(passages), 5) + 1)))


def _quoted(messages: Sequence[Message]) -> list[_Passage]:
    """Return the passages of one exchange, each with who said it."""
    passages, source = [], "user"
    for message in messages:
        calls = message.get("tool_calls")
        source = f"tool:{calls[0]['function']['name']}" if calls else source
        if message["content"]:
            said_by = {"user": "user", "assistant": "agent", "tool": source}[message["role"]]
            passages.append((said_by, _shortened(message["content"])))
    return passages


def _shortened(text: str) -> str:
    return "\n  ".join(text[:LONGEST].strip().splitlines())


def _laid_out(rng: random.Random, passages: Sequence[_Passage]) -> Message:
    days = sorted((rng.randrange(1, 13), rng.randrange(1, 29)) for _ in passages)
    lines = [
        f"[m:{rng.randrange(16**8):08x}] 2026-{month:02}-{day:02} {source}: {text}\n"
        for (month, day), (source, text) in zip(days, passages, strict=True)
    ]
    return {"role": "system", "content": BLOCK_OPENING + "".join(lines) + BLOCK_CLOSING}


def _about(rng: random.Random, item: Attribute, value: str) -> list[_Passage]:
    """Return what was said about the attribute, its newest value last; at times with what was said before."""
    older = rng.choice([other for other in item.values if other != value]) if rng.random() < 0.25 else None
    passages = [] if older is None else _told(rng, item, older, update=False)
    return passages + _told(rng, item, value, update=older is not None)


def _told(rng: random.Random, item: Attribute, value: str, *, update: bool) -> list[_Passage]:
    facts = [(item, value)]
    said = statement(rng, item, value, update=update)
    if rng.random() < 0.15:
        other = rng.choice([one for one in ATTRIBUTES if one is not item])
        facts.append((other, rng.choice(other.values)))
        said += " " + statement(rng, *facts[1])
    both = [("user", said), ("agent", noted(facts))]
    return both if rng.random() < 0.5 else [rng.choice(both)]


def _one(rng: random.Random, item: Attribute, value: str) -> _Passage:
    return rng.choice((("user", statement(rng, item, value)), ("agent", noted([(item, value)]))))


def _unrelated(rng: random.Random, item: Attribute) -> _Passage:
    """Return a passage that says nothing about the attribute: another fact, or a message of other work."""
    if rng.random() < 0.5:
        other = rng.choice([one for one in ATTRIBUTES if one is not item])
        return _one(rng, other, rng.choice(other.values))
    message = rng.choice([m for m in noise_segment(rng) if m["content"]] or [{"content": rng.choice(PLAIN_REPLIES)}])
    source = "agent" if message.get("role") == "assistant" else "user"
    return source, _shortened(message["content"])
