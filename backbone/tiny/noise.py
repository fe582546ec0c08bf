"""Generate unrelated text that looks like agent work: logs, code, tables, chat, tool calls."""

import argparse
import csv
import heapq
import inspect
import json
import random
import string
import textwrap
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from backbone.tiny.domain import ATTRIBUTES

__all__ = ["CHAT", "COLUMNS", "MODULES", "assistant", "noise_segment", "tool_call", "user"]

Message = Mapping[str, Any]

MODULES = (
    "cache", "router", "parser", "loader", "session", "billing", "search", "mailer", "worker", "storage", "client",
    "config", "metrics", "queue", "report", "schema", "planner", "uploader", "tracker", "views",
)  # fmt: skip
VERBS = (
    "get", "load", "save", "parse", "check", "merge", "split", "build", "send", "read", "count", "find", "make", "open",
)  # fmt: skip
NOUNS = (
    "user", "item", "row", "page", "file", "key", "order", "token", "event", "record", "value", "path", "name", "query",
)  # fmt: skip
COLUMNS = (
    "price", "income", "age", "score", "weight", "height", "rating", "sales", "profit", "cost", "demand", "clicks",
    "revenue", "volume", "duration", "distance", "speed", "humidity", "pressure", "salary",
)  # fmt: skip
LEVELS = ("INFO", "INFO", "INFO", "DEBUG", "WARNING")
EVENTS = (
    "request took {n} ms", "retry {n} of 9", "loaded {n} rows", "wrote {n} bytes", "connection {n} closed",
    "job {n} finished", "cache miss for key {n}", "sent {n} events", "user {n} logged in", "{w} is ready",
)  # fmt: skip

CHAT = (
    ("What is a mutex?", "A mutex lets one thread enter at a time."),
    ("What is a deadlock?", "A deadlock is when two threads wait for each other forever."),
    ("What does a hash map do?", "A hash map finds a value by its key in constant time."),
    ("What is recursion?", "Recursion is when a function calls itself."),
    ("What is a median?", "The median is the middle value of sorted data."),
    ("What is a p-value?", "A p-value says how surprising the data is if nothing is going on."),
    ("What is overfitting?", "Overfitting is when a model learns the noise of its training data."),
    ("What is a race condition?", "A race condition is when the result depends on timing."),
    ("What does git rebase do?", "It moves your commits on top of another branch."),
    ("What is a join?", "A join combines rows of two tables that share a key."),
    ("What is an index in a table?", "An index makes lookups in a table fast."),
    ("What is a closure?", "A closure is a function that keeps variables of its scope."),
    ("What is caching?", "Caching keeps results so that they need not be computed again."),
    ("What is a histogram?", "A histogram shows how often values fall into ranges."),
    ("What is correlation?", "Correlation says how strongly two variables move together."),
    ("What is unit testing?", "Unit testing checks small parts of a program alone."),
    ("Thanks, that helps.", "You are welcome."),
    ("Hello!", "Hello. How can I help?"),
    ("Good morning.", "Good morning. What shall we do?"),
    ("I will be back after lunch.", "See you later."),
    ("The meeting was long today.", "I hope it was useful."),
    ("That looks good to me.", "Great."),
    ("Let us take a short break.", "Sure."),
    ("hello", "Hello. How can I help?"),
    ("Hey", "Hello. How can I help?"),
    ("hi", "Hello. How can I help?"),
    ("how are you", "I am fine. What shall we do next?"),
    ("Write me 2 haikus. Only include the haikus.", "Rain falls on the roof. Tests are green. The log is quiet."),
    ("How are you?", "I am fine. What shall we do next?"),
)  # fmt: skip


def user(content: str) -> dict[str, Any]:
    """Return a user message."""
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    """Return an assistant message."""
    return {"role": "assistant", "content": content}


def tool_call(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return an assistant message that holds one tool call in OpenAI form."""
    call = {"type": "function", "id": "call_0", "function": {"name": name, "arguments": dict(arguments)}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _word(rng: random.Random) -> str:
    """Return a word that also occurs as a value somewhere, so that values in passing are not taken for facts."""
    return rng.choice(rng.choice(ATTRIBUTES).values)


def _log(rng: random.Random, lines: int) -> tuple[str, str | None]:
    failing = rng.choice(MODULES) if rng.random() < 0.5 else None
    at = rng.randrange(lines)
    text = []
    for number in range(lines):
        clock = f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"
        if failing and number == at:
            text.append(f"{clock} ERROR {failing}: job {rng.randrange(1000)} failed")
        else:
            event = rng.choice(EVENTS).format(n=rng.randrange(1000), w=_word(rng))
            text.append(f"{clock} {rng.choice(LEVELS)} {rng.choice(MODULES)}: {event}")
    return "\n".join(text), failing


def _code(rng: random.Random) -> str:
    verb, noun, other = rng.choice(VERBS), rng.choice(NOUNS), rng.choice(NOUNS)
    body = rng.choice(
        (
            f"    for {noun} in {other}s:\n        if {noun}.ready:\n            return {noun}\n    return None",
            f"    {other} = {rng.choice(VERBS)}_{other}({noun})\n    return {other}.{rng.choice(NOUNS)}",
            f"    if not {noun}:\n        raise ValueError('no {noun}')\n    return {noun}[{rng.randrange(10)}]",
            f"    with open({noun}) as {other}:\n        return [line.strip() for line in {other}]",
            f"    total = {rng.randrange(100)}\n    total += len({noun})\n    return total",
        )
    )
    return f"def {verb}_{noun}({noun}, {other}s):\n{body}"


@cache
def _library_source() -> tuple[str, ...]:
    """Return lines of real Python source, from the standard library's own files."""
    modules = (argparse, csv, heapq, json, string, textwrap)
    return tuple(line for module in modules for line in inspect.getsource(module).splitlines() if len(line) < 100)


def _real_code(rng: random.Random) -> str:
    lines = _library_source()
    start = rng.randrange(len(lines) - 12)
    return "\n".join(lines[start : start + rng.randrange(3, 9)]).strip("\n")


def _table(rng: random.Random) -> str:
    columns = rng.sample(COLUMNS, 3)
    rows = [" | ".join(str(rng.randrange(1000)) for _ in columns) for _ in range(rng.randrange(2, 6))]
    return "\n".join([" | ".join(columns), *rows])


def _content(rng: random.Random) -> tuple[str, str]:
    """Return a pasted text and what there is to say about it."""
    kind = rng.random()
    if kind < 0.4:
        text, failing = _log(rng, rng.randrange(2, 7))
        return text, f"There is an error in {failing}." if failing else "The log shows no error."
    if kind < 0.6:
        return _code(rng), "The code looks fine."
    if kind < 0.75:
        return _real_code(rng), "The code looks fine."
    return _table(rng), "I have read the table."


def _paste(rng: random.Random) -> list[Message]:
    text, reply = _content(rng)
    request = rng.choice(
        ("Look at this:", "Check this:", "Here is the output:", "What do you see here?", "Please read:")
    )
    return [user(f"{request}\n{text}"), assistant(reply)]


def _chat(rng: random.Random) -> list[Message]:
    question, reply = rng.choice(CHAT)
    return [user(question), assistant(reply)]


def _rename(rng: random.Random) -> list[Message]:
    old, new = (f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}" for _ in range(2))
    module = rng.choice(MODULES)
    return [user(f"Rename {old} to {new} in {module}.py."), assistant(f"Renamed {old} to {new}.")]


def _path(rng: random.Random) -> str:
    folder = rng.choice(("src", "app", "lib", "docs", "data"))
    return f"{folder}/{rng.choice(MODULES)}.{rng.choice(('py', 'log', 'csv', 'md'))}"


def _used(request: str, name: str, arguments: Mapping[str, Any], result: str, reply: str) -> list[Message]:
    """Return an exchange in which the user's words fill the arguments of a tool."""
    output = {"role": "tool", "tool_call_id": "call_0", "content": result}
    return [user(request), tool_call(name, arguments), output, assistant(reply)]


def _read(rng: random.Random) -> list[Message]:
    path = _path(rng)
    request = rng.choice(("Read {p}.", "Open {p}.", "Show me {p}.", "Look into {p}.")).format(p=path)
    text, _ = _content(rng)
    return _used(request, "read_file", {"path": path}, text, f"I have read {path}.")


def _list(rng: random.Random) -> list[Message]:
    folder = rng.choice(("src", "app", "lib", "docs", "data", "tests", "tools", "scripts", "."))
    request = rng.choice(("List the files in {f}.", "What is in {f}?", "Which files are in {f}?")).format(f=folder)
    names = "\n".join(f"{name}.py" for name in rng.sample(MODULES, rng.randrange(1, 5)))
    return _used(request, "list_files", {"folder": folder}, names, f"I have listed {folder}.")


def _search(rng: random.Random) -> list[Message]:
    text = rng.choice((f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}", rng.choice(NOUNS), rng.choice(MODULES), "TODO"))
    request = rng.choice(("Search for {t}.", "Where is {t} used?", "Find {t} in the project.")).format(t=text)
    found = "\n".join(f"{_path(rng)}:{rng.randrange(1, 300)}: {text}" for _ in range(rng.randrange(4)))
    return _used(request, "search_files", {"text": text}, found or "nothing found", f"I searched for {text}.")


def _write(rng: random.Random) -> list[Message]:
    path = rng.choice((_path(rng), f"{rng.choice(('notes', 'todo', 'readme', 'changes'))}.{rng.choice(('md', 'txt'))}"))
    text = rng.choice(
        (
            f"{rng.choice(VERBS)} the {rng.choice(NOUNS)}",
            f"# {rng.choice(VERBS)} {rng.choice(NOUNS)}",
            f"{rng.choice(MODULES)} is done",
            f"fix {rng.choice(MODULES)}",
            rng.choice(NOUNS),
        )
    )
    request = rng.choice(("Write '{t}' to {p}.", "Save '{t}' in {p}.", "Put '{t}' into {p}.")).format(t=text, p=path)
    declined = rng.random() < 0.25
    result = "declined by the user" if declined else f"wrote {len(text)} characters"
    reply = f"I did not write {path}." if declined else f"I wrote {path}."
    return _used(request, "write_file", {"path": path, "content": text}, result, reply)


def _profile(rng: random.Random) -> list[Message]:
    request = rng.choice(("Profile the table.", "Give me an overview of the data.", "What does the table look like?"))
    return _used(request, "profile", {}, _table(rng), "I have profiled the table.")


_PLAIN: tuple[Callable[[random.Random], list[Message]], ...] = (_paste, _chat, _rename)
_PLAIN_WEIGHTS = (0.6, 0.25, 0.15)
_WITH_TOOLS: Mapping[str, Callable[[random.Random], list[Message]]] = {
    "read_file": _read,
    "list_files": _list,
    "search_files": _search,
    "write_file": _write,
    "profile": _profile,
}


def noise_segment(rng: random.Random, tools: frozenset[str] = frozenset()) -> list[Message]:
    """Return the messages of one unrelated exchange; some of them call one of `tools`, named, where there are any."""
    usable = [exchange for name, exchange in _WITH_TOOLS.items() if name in tools]
    if usable and rng.random() < 0.4:
        return rng.choice(usable)(rng)
    return rng.choices(_PLAIN, _PLAIN_WEIGHTS)[0](rng)
