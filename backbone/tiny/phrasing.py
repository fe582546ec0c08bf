"""Hold how people say, change and ask for facts, and which combinations are kept from training."""

import random
import zlib

from backbone.tiny.domain import Attribute

__all__ = [
    "PLAIN_REPLIES",
    "QUESTIONS",
    "RESULTS",
    "STATEMENTS",
    "SYSTEMS",
    "UPDATES",
    "answer_text",
    "is_held_out",
    "question_text",
    "statement",
]

STATEMENTS = (
    "The {a} is {v}.", "Use {v} as the {a}.", "For the {a} we use {v}.", "Please remember that the {a} is {v}.",
    "Our {a} is {v}.", "We settled on {v} for the {a}.", "From now on the {a} is {v}.", "Note that our {a} is {v}.",
    "{a}: {v}", "Set the {a} to {v}.", "We decided that the {a} will be {v}.", "Keep in mind that {v} is our {a}.",
    "As for the {a}, take {v}.", "{v} is the {a} of this project.",
)  # fmt: skip
# The value comes before what it is the value of, most often as the first word of all, where its tokens are others than
# after a space. Those that are spelled out are for training only: with them, every value is learned in that place, also
# the values that are kept from training in the others.
VALUE_FIRST = (
    "{v} is our {a}.", "{v} will be the {a}.", "{v} is the {a} here.", "{v} for the {a}, please.",
    "{v}: that is the {a}.", STATEMENTS[-1], STATEMENTS[-1], STATEMENTS[11], STATEMENTS[1], STATEMENTS[1],
    STATEMENTS[5],
)  # fmt: skip
UPDATES = (
    "Change of plan: the {a} is now {v}.", "We switched the {a} to {v}.", "The {a} has changed to {v}.",
    "Forget the old {a}, it is {v} now.", "Update: the {a} is {v}.", "I changed my mind, the {a} is {v}.",
    "The {a} is no longer the same, use {v}.", "From today the {a} is {v} instead.",
)  # fmt: skip
VALUE_FIRST_UPDATES = (
    STATEMENTS[1], STATEMENTS[1], "{v} is the {a} now.", "Take {v} as the {a} instead.", "We now use {v} as the {a}.",
)  # fmt: skip
QUESTIONS = (
    "What is the {a}?", "Which {a} do we use?", "Remind me of the {a}.", "Do you remember the {a}?",
    "What did I say about the {a}?", "Tell me the {a}.", "What was the {a} again?",
)  # fmt: skip
SYSTEMS = (
    "You are a coding assistant.", "You are a data analyst.", "You are a helpful assistant.", "Answer briefly.",
    "You are a careful assistant for a software project.", "You help with code and data. Answer in one sentence.",
    "You work on a repository with tools.", "You are an assistant that remembers what it is told.",
)  # fmt: skip
PLAIN_REPLIES = ("Noted.", "Okay.", "Understood.", "Sure.")
RESULTS = (
    "{n} passed in 0.{n}s", "1 failed, {n} passed", "ok", "All checks passed!", "exit code 0", "done in {n} ms",
    "exit code 1\nerror: line {n} is wrong", "{n} files were left unchanged", "Ran {n} tests in 0.0{n}s\n\nOK", "",
    "mean {n}.5\nmedian {n}\nmissing 0", "mean {n}.25 over {n} rows", "p = 0.{n}\nno difference",
    "p = 0.00{n}\nthe groups differ", "{n} rows kept", "plot_{n}.png", "F.\nFAIL: test_{n}\nFAILED (failures=1)",
)  # fmt: skip
HELD_OUT_SHARE = 8


def is_held_out(name: str, value: str, template: str) -> bool:
    """Tell whether this combination of attribute, value and phrasing is kept from training."""
    return zlib.crc32(f"{name}|{value}|{template}".encode()) % HELD_OUT_SHARE == 0


def answer_text(name: str, value: str | None) -> str:
    """Return the reply to a question about the attribute `name`."""
    return f"The {name} is unknown to me." if value is None else f"The {name} is {value}."


def statement(
    rng: random.Random,
    item: Attribute,
    value: str,
    *,
    update: bool = False,
    held_out: bool = False,
    value_first: bool = False,
) -> str:
    """Return a sentence that states `value`, in a phrasing that training may (with `held_out`: must not) use for it.

    held_out: a value of which no phrasing is kept from training is stated in any of them. value_first: the value comes
    before what it is the value of; it has to be read backwards.
    """
    templates = (*UPDATES, *STATEMENTS[:2]) if update else (*STATEMENTS, *item.statements, *item.statements)
    if value_first:
        templates = VALUE_FIRST_UPDATES if update else VALUE_FIRST
    fitting = [t for t in templates if is_held_out(item.names[0], value, t) == held_out]
    text = rng.choice(fitting or templates).format(a=rng.choice(item.names), v=value)
    return text[0].upper() + text[1:] if text[0] != value[0] else text


def question_text(rng: random.Random, item: Attribute) -> str:
    """Return a question about the attribute."""
    return rng.choice((*QUESTIONS, *item.questions)).format(a=rng.choice(item.names))
