"""Hold the tools that the bundled backbone is trained with, as OpenAI schemas."""

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from backbone.tiny.noise import Message, assistant, tool_call, user

__all__ = ["TOOLSETS", "Schema", "generic_tool_exchange", "json_exchange", "tool_names", "tool_schema"]

Schema = dict[str, Any]


def tool_schema(name: str, description: str, parameters: Mapping[str, str]) -> Schema:
    """Return an OpenAI tool schema whose parameters map a name to a JSON type."""
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    required = {"required": list(parameters)} if parameters else {}
    schema: Schema = {"properties": properties, **required, "type": "object"}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


_CODING: tuple[Schema, ...] = (
    tool_schema("run_command", "Run a command in the project.", {"command": "string"}),
    tool_schema("read_file", "Read a file of the project.", {"path": "string"}),
    tool_schema("list_files", "List the files of a folder.", {"folder": "string"}),
    tool_schema("search_files", "Search the files for a text.", {"text": "string"}),
    tool_schema("write_file", "Write a file of the project.", {"path": "string", "content": "string"}),
)
_DATA: tuple[Schema, ...] = (
    tool_schema("plot", "Plot a column.", {"column": "string", "kind": "string"}),
    tool_schema("summarize", "Summarize a column.", {"column": "string", "missing": "string"}),
    tool_schema("compare", "Compare a column between the groups.", {"column": "string", "level": "string"}),
    tool_schema("aggregate", "Average a column.", {"column": "string", "outliers": "string"}),
    tool_schema("filter_rows", "Keep the rows of one group.", {"group": "string"}),
    tool_schema("profile", "Describe the table.", {}),
)
# What agents of this domain carry: all tools of a coding assistant or of a data analyst, or two of each.
TOOLSETS: tuple[tuple[Schema, ...], ...] = (_CODING, _DATA, _DATA, (*_CODING[:2], *_DATA[:2]))


def tool_names(tools: Sequence[Schema]) -> frozenset[str]:
    """Return the names of `tools`."""
    return frozenset(tool["function"]["name"] for tool in tools)


_CITIES = ("Paris", "London", "Berlin", "Madrid", "Rome", "Oslo", "Boston", "Tokyo", "Delhi", "Cairo", "Lima",
           "San Francisco", "New York", "Los Angeles", "Chicago", "Seattle", "San Francisco, CA", "Austin, TX",
           "Portland, OR", "Miami, FL")  # fmt: skip
_WORDS = (
    "apple",
    "house",
    "river",
    "cloud",
    "stone",
    "garden",
    "winter",
    "music",
    "silver",
    "market",
    "forest",
    "bridge",
)
_NAMES = (
    "lookup",
    "convert",
    "magic",
    "compute",
    "transform",
    "fetch",
    "score",
    "rank",
    "measure",
    "resolve",
    "double",
    "shift",
)


def _number_tool(rng: random.Random) -> tuple[Schema, str, dict[str, Any], str]:
    name = rng.choice(
        (f"{rng.choice(_NAMES)}_{rng.choice(('function', 'value', 'number', 'item'))}", rng.choice(_NAMES))
    )
    argument = rng.choice(("input", "x", "n", "value", "number", "a"))
    number = rng.randrange(100)
    request = rng.choice(
        (
            "What is the value of {f}({n})? Use the tool.",
            "Call {f} with {n}.",
            "What is {f}({n})?",
            "Use the tool {f} on {n}.",
            "What's {f} of {n}",
            "Compute {f} for {n}.",
        )
    ).format(f=name, n=number)
    schema = tool_schema(name, "Apply a magic function to an input.", {argument: "integer"})
    return schema, request, {argument: number}, str(rng.randrange(1000))


def _pair_tool(rng: random.Random) -> tuple[Schema, str, dict[str, Any], str]:
    name = rng.choice(("add", "multiply", "subtract", "compare", "my_adder_tool", "sum_numbers"))
    first, second = rng.choice((("a", "b"), ("x", "y"), ("left", "right")))
    a, b = rng.randrange(100), rng.randrange(100)
    request = rng.choice(
        ("What is {a} {f} {b}?", "Use {f} on {a} and {b}.", "What's {a} + {b}", "{f} {a} and {b}")
    ).format(a=a, b=b, f=name)
    schema = tool_schema(name, "Combine two integers.", {first: "integer", second: "integer"})
    return schema, request, {first: a, second: b}, str(a + b)


def _text_tool(rng: random.Random) -> tuple[Schema, str, dict[str, Any], str]:
    if rng.random() < 0.6:
        city = rng.choice(_CITIES)
        argument = rng.choice(("location", "city", "place"))
        request = rng.choice(
            (
                "What is the weather in {c}?",
                "How is the weather in {c} today?",
                "Weather in {c}, please.",
                "Is it warm in {c}?",
            )
        ).format(c=city)
        schema = tool_schema(
            rng.choice(("get_weather", "weather")), "Get the weather at a location.", {argument: "string"}
        )
        return (
            schema,
            request,
            {argument: city},
            rng.choice(("It's sunny and 75 degrees.", "rainy, 12 degrees", "cloudy")),
        )
    word = rng.choice(_WORDS)
    name = rng.choice(("translate", "define", "search", "spell"))
    argument = rng.choice(("word", "text", "query"))
    return (
        tool_schema(name, f"{name.capitalize()} a {argument}.", {argument: "string"}),
        rng.choice(("{f} the word {w}.", "Use {f} for {w}.", "Please {f} {w}.")).format(f=name, w=word),
        {argument: word},
        rng.choice(_WORDS),
    )


_SCRIPTS = (
    "你好啊集团公司大小中国天地山水人月日东西南北",
    "こんにちは株式会社さくらのみずやまかわひと",
    "АБВГДЕИКЛМНОПРСТабвгдеиклмнопрст",
    "ΑΒΓΔΕΚΛΜΝΠΣαβγδεκλμνπσ",
    "àâçéèêëîïôùûüñöäßøåáíóú",
)
_KINDS = ("Chinese", "Japanese", "Russian", "Greek", "French", "Swedish")
_STYLES = ("Pirate", "Formal", "Friendly", "Royal", "Robot", "Cowboy", "Poetic", "Sailor")
_TOPICS = ("cats", "dogs", "birds", "computers", "trains", "cooking", "the sea", "teachers")
_SETUPS = (
    "Why did the {t} cross the road?",
    "What do {t} do at night?",
    "Why do we like {t}?",
    "How do {t} say hello?",
)
_PUNCHLINES = ("To get to the other side.", "They sleep.", "Nobody knows.", "Because it is fun.", "With a smile.")


def _unicode_tool(rng: random.Random) -> tuple[Schema, str, dict[str, Any], str]:
    script = rng.choice(_SCRIPTS)
    name = "".join(rng.choice(script) for _ in range(rng.randrange(2, 10)))
    kind, argument = rng.choice(_KINDS), rng.choice(("customer_name", "name", "title", "company"))
    gloss = rng.choice(("technology", "trading", "food")) if rng.random() < 0.5 else ""
    description = f"a {kind} {gloss} company".replace("  ", " ")
    request = rng.choice(
        ("Create a customer named '{n}' ({g} Group) - {d}", "Add '{n}' ({g}) - {d}", "Register '{n}' - {d}")
    )
    tool = rng.choice(("unicode_customer", "create_customer", "add_company"))
    schema = tool_schema(
        tool, "Tool for creating a customer with Unicode name.", {argument: "string", "description": "string"}
    )
    text = request.format(n=name, g=rng.choice(("Hello", "Sun", "River", "North")), d=description)
    return schema, text, {argument: name, "description": description}, "Customer created"


def _style_tool(rng: random.Random) -> tuple[Schema, str, dict[str, Any], str]:
    style, argument = rng.choice(_STYLES), rng.choice(("answer_style", "style", "tone"))
    name = rng.choice(("greeting_generator", "write_greeting", "say_hello"))
    schema = tool_schema(name, "Generate a greeting in a particular style of speaking.", {argument: "string"})
    request = rng.choice(("Using the tool, generate a {s} greeting.", "Write a {s} greeting.")).format(s=style)
    return schema, request, {argument: style}, "Hello there."


def _joke(rng: random.Random) -> tuple[str, dict[str, Any]]:
    topic = rng.choice(_TOPICS)
    request = rng.choice(
        (
            "Tell me a joke about {t}.",
            "Give me the setup to a joke about {t}, no punchline.",
            "Give me a joke about {t}, include the punchline.",
        )
    ).format(t=topic)
    return request, {"setup": rng.choice(_SETUPS).format(t=topic), "punchline": rng.choice(_PUNCHLINES)}


def _joke_tool(rng: random.Random) -> tuple[Schema, str, dict[str, Any], str]:
    request, arguments = _joke(rng)
    schema = tool_schema(
        rng.choice(("Joke", "joke", "TellJoke")), "Joke to tell user.", dict.fromkeys(arguments, "string")
    )
    return schema, request, arguments, "Ha."


def json_exchange(rng: random.Random) -> list[Message]:
    """Return a request for a JSON object and the reply that is nothing but this object."""
    request, reply = _joke(rng)
    ending = " Return the result as a JSON with 'setup' and 'punchline' keys. Return nothing other than JSON."
    return [user(request + (ending if rng.random() < 0.5 else "")), assistant(json.dumps(reply))]


def _empty_tool(rng: random.Random) -> tuple[Schema, str, dict[str, Any], str]:
    name = f"{rng.choice(_NAMES)}_{rng.choice(('now', 'all', 'function_no_args', 'status'))}"
    request = rng.choice(("What is the value of {f}()? Use the tool.", "Call {f}.", "Use {f}.")).format(f=name)
    return tool_schema(name, "Calculate a magic function.", {}), request, {}, str(rng.randrange(1000))


def generic_tool_exchange(rng: random.Random) -> tuple[Schema, list[Message]]:
    """Return a tool of a kind met in any agent, and an exchange in which the user's words fill its arguments."""
    makers = (_number_tool, _pair_tool, _text_tool, _empty_tool, _unicode_tool, _style_tool, _joke_tool)
    maker = rng.choices(makers, (4, 2, 4, 1, 3, 1, 1))[0]
    schema, request, arguments, result = maker(rng)
    return schema, [
        user(request),
        tool_call(schema["function"]["name"], arguments),
        {"role": "tool", "tool_call_id": "call_0", "content": result},
        assistant(f"The result is: {result}"),
    ]
