"""Generate conversations in which people state facts, change them, do unrelated work, ask, and ask for actions."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from backbone.tiny.actions import ACTION_COLUMNS, ACTIONS, Action
from backbone.tiny.domain import ATTRIBUTES, Attribute, attribute
from backbone.tiny.noise import Message, assistant, noise_segment, tool_call, user
from backbone.tiny.phrasing import PLAIN_REPLIES, RESULTS, SYSTEMS, answer_text, question_text, statement
from backbone.tiny.quoting import missing_block, noted, recalled_block, work_block
from backbone.tiny.toolset import TOOLSETS, Schema, generic_tool_exchange, json_exchange, tool_names

__all__ = ["Episode", "EpisodeOptions", "Query", "Turn", "generate_episode", "retold", "unrelated_turns"]


@dataclass(frozen=True)
class Turn:
    """Hold one message, whether the model is trained to say it, and the facts (attribute, value) that it states."""

    message: Message
    kind: str
    trained: bool = False
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Query:
    """Hold a question, the expected reply and what it is about (`value` None: it was never told)."""

    attribute: str
    value: str | None
    turns: tuple[Turn, ...]
    recalled: Message | None = None


@dataclass(frozen=True)
class Episode:
    """Hold what was said, and questions that are to be answered from it."""

    system: str | None
    tools: tuple[Schema, ...]
    history: tuple[Turn, ...]
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class EpisodeOptions:
    """Set the size and the kind of an episode.

    noise: number of unrelated exchanges. acting_facts: how many facts, at least, are such that actions depend on them;
    only where there are tools. value_first_share: of the statements, in phrasings that name the value before what it is
    the value of, beyond those that are so anyway. explained_share: of the calls that depend on a fact, behind a
    sentence that states it, so that what was never told is found missing before a call is begun. missing_share: of the
    recalled blocks, those that do not hold what is asked, so that the conversation itself or the memory must answer.
    quoted_share: of the unrelated exchanges, those behind a recalled block, which quotes other work. restated_share: of
    the changes, those said as if for the first time, so that nothing but their place tells which value is the newest.
    """

    facts: int
    noise: int
    queries: int
    update_share: float = 0.3
    unknown_share: float = 0.15
    action_share: float = 0.2
    tools_share: float = 0.3
    recalled_share: float = 0.0
    missing_share: float = 0.0
    quoted_share: float = 0.0
    restated_share: float = 0.0
    group_share: float = 0.15
    plain_reply_share: float = 0.25
    acting_facts: int = 0
    value_first_share: float = 0.0
    explained_share: float = 0.0
    behind: bool = False
    held_out: bool = False


def _first(rng: random.Random, options: EpisodeOptions) -> bool:
    return bool(options.value_first_share) and rng.random() < options.value_first_share


def _announced(rng: random.Random, options: EpisodeOptions, *, update: bool) -> bool:
    """Tell whether a statement says that it changes something."""
    return update and not (options.restated_share and rng.random() < options.restated_share)


def _telling(rng: random.Random, facts: Sequence[tuple[Attribute, str, bool]], options: EpisodeOptions) -> list[Turn]:
    """Return one exchange in which the user states `facts`."""
    text = " ".join(
        statement(
            rng,
            item,
            value,
            update=_announced(rng, options, update=update),
            held_out=options.held_out,
            value_first=_first(rng, options),
        )
        for item, value, update in facts
    )
    told = tuple((item.names[0], value) for item, value, _ in facts)
    if rng.random() < options.plain_reply_share:
        reply = Turn(assistant(rng.choice(PLAIN_REPLIES)), "fact")
    else:
        echo = assistant(noted([(item, value) for item, value, _ in facts]))
        reply = Turn(echo, "fact", trained=True, facts=told)
    return [Turn(user(text), "fact", facts=told), reply]


def unrelated_turns(rng: random.Random, tools: frozenset[str], quoted_share: float = 0.0) -> list[Turn]:
    """Return one unrelated exchange, with `quoted_share` as the chance of a recalled block before it."""
    return _unrelated(rng, noise_segment(rng, tools), tools, quoted_share)


def _unrelated(rng: random.Random, exchange: list[Message], tools: frozenset[str], quoted_share: float) -> list[Turn]:
    turns = [Turn(message, "noise", trained=message["role"] == "assistant") for message in exchange]
    if quoted_share and rng.random() < quoted_share:
        turns.insert(0, Turn(work_block(rng, exchange, tools), "recalled"))
    return turns


def _events(
    rng: random.Random, options: EpisodeOptions, chosen: Sequence[Attribute]
) -> Iterator[list[tuple[Attribute, str, bool]]]:
    """Yield groups of statements in order: every attribute once, some again later with another value."""
    first = [(item, rng.choice(item.values), False) for item in chosen]
    changed = [entry for entry in first if rng.random() < options.update_share]
    later = [(item, rng.choice([v for v in item.values if v != value]), True) for item, value, _ in changed]
    order = list(first)
    for entry in later:
        at = next(i for i, (item, _, _) in enumerate(order) if item is entry[0])
        order.insert(rng.randrange(at + 1, len(order) + 1), entry)
    while order:
        size = rng.choice((2, 3)) if rng.random() < options.group_share else 1
        group, order = order[:size], order[size:]
        names = [item.names[0] for item, _, _ in group]
        if len(set(names)) < len(names):
            group, order = group[:1], group[1:] + order
        yield group


def _history(
    rng: random.Random, options: EpisodeOptions, chosen: Sequence[Attribute], tools: frozenset[str]
) -> tuple[list[Turn], dict[str, str]]:
    values: dict[str, str] = {}
    blocks: list[list[Turn]] = []
    for group in _events(rng, options, chosen):
        blocks.append(_telling(rng, group, options))
        values.update({item.names[0]: value for item, value, _ in group})
    for _ in range(options.noise):
        at = len(blocks) if options.behind else rng.randrange(len(blocks) + 1)
        blocks.insert(at, unrelated_turns(rng, tools, options.quoted_share))
    return [turn for block in blocks for turn in block], values


def _question(rng: random.Random, item: Attribute, value: str | None) -> tuple[Turn, ...]:
    return Turn(user(question_text(rng, item)), "ask"), Turn(
        assistant(answer_text(item.names[0], value)), "answer", trained=True
    )


def _action(rng: random.Random, action: Action, value: str | None, explained: float) -> tuple[Turn, ...]:
    column = rng.choice(ACTION_COLUMNS)
    request = Turn(user(rng.choice(action.requests).format(c=column)), "ask")
    if value is None:
        return request, Turn(assistant(answer_text(action.attribute, None)), "answer", trained=True)
    arguments: dict[str, Any] = {} if action.copied is None else {action.copied: column}
    call = tool_call(action.tool, {**arguments, action.argument: value})
    if explained and rng.random() < explained:
        call["content"] = answer_text(action.attribute, value)
    result = {"role": "tool", "tool_call_id": "call_0", "content": rng.choice(RESULTS).format(n=rng.randrange(100))}
    done = assistant(action.report.format(c=column, v=value))
    return request, Turn(call, "answer", trained=True), Turn(result, "after"), Turn(done, "after", trained=True)


def _query(rng: random.Random, options: EpisodeOptions, values: dict[str, str], tools: frozenset[str]) -> Query:
    unknown = rng.random() < options.unknown_share or not values
    acting = bool(tools) and rng.random() < options.action_share
    possible = [action for action in ACTIONS if action.tool in tools] if acting else []
    candidates: list[Any] = [a for a in possible if (a.attribute in values) != unknown]
    if not candidates:
        acting, candidates = False, [a for a in ATTRIBUTES if (a.names[0] in values) != unknown]
    picked = rng.choice(candidates)
    name = picked.attribute if acting else picked.names[0]
    value, recalled = values.get(name), None
    if options.recalled_share and rng.random() < options.recalled_share:
        if options.missing_share and rng.random() < options.missing_share:
            recalled = missing_block(rng, name, values)
        else:
            recalled, value = recalled_block(rng, name, value)
    turns = _action(rng, picked, value, options.explained_share) if acting else _question(rng, picked, value)
    return Query(name, value, turns, recalled)


def retold(rng: random.Random, query: Query) -> tuple[list[Turn], Query]:
    """Return an exchange that changes what `query` asks for, and the question with the new answer."""
    item = attribute(query.attribute)
    value = rng.choice([v for v in item.values if v != query.value])
    telling = _telling(rng, [(item, value, True)], EpisodeOptions(1, 0, 1))
    return telling, Query(query.attribute, value, _question(rng, item, value))


def _toolset(rng: random.Random, options: EpisodeOptions) -> tuple[Schema, ...]:
    if rng.random() >= options.tools_share:
        return ()
    tools = list(rng.choice(TOOLSETS))
    rng.shuffle(tools)
    return tuple(tools)


def _generic(rng: random.Random, quoted_share: float) -> Episode:
    """Return a short conversation about any tool, as every agent has them."""
    schema, exchange = generic_tool_exchange(rng) if rng.random() < 0.85 else (None, json_exchange(rng))
    schemas = [schema] if schema else []
    if schema and rng.random() < 0.3:
        schemas.insert(rng.randrange(2), generic_tool_exchange(rng)[0])
    system = rng.choice(SYSTEMS) if rng.random() < 0.3 else None
    turns = _unrelated(rng, exchange, frozenset(), quoted_share)
    return Episode(system, tuple(schemas), tuple(turns), ())


def _chosen(rng: random.Random, facts: int, acting: int, tools: frozenset[str]) -> list[Attribute]:
    """Return the attributes that an episode states, `acting` of them such that calls of `tools` depend on them."""
    possible = [action for action in ACTIONS if action.tool in tools] if acting else []
    needed = [attribute(action.attribute) for action in rng.sample(possible, min(acting, facts, len(possible)))]
    chosen = [*needed, *rng.sample([item for item in ATTRIBUTES if item not in needed], facts - len(needed))]
    if needed:
        rng.shuffle(chosen)
    return chosen


def generate_episode(rng: random.Random, options: EpisodeOptions, *, generic_share: float = 0.0) -> Episode:
    """Return a new episode drawn from `rng`."""
    if rng.random() < generic_share:
        return _generic(rng, options.quoted_share)
    tools = _toolset(rng, options)
    names = tool_names(tools)
    chosen = _chosen(rng, options.facts, options.acting_facts, names)
    history, values = _history(rng, options, chosen, names)
    queries = tuple(_query(rng, options, values, names) for _ in range(options.queries))
    system = rng.choice(SYSTEMS) if rng.random() < 0.5 else None
    return Episode(system, tools, tuple(history), queries)
