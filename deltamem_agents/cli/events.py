"""Show what happens in a conversation with an agent that has tools, as text or as JSON; no model is loaded for it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from deltamem_agents.cli.escaping import printable
from deltamem_agents.cli.progress import print_error
from deltamem_agents.cli.terminal import note

__all__ = ["Event", "Show", "events", "print_event", "print_json"]

Event = dict[str, Any]
Show = Callable[[Event], None]


def events(message: BaseMessage) -> Iterator[Event]:
    """Yield what a new message is to a person: a tool's result, or calls and an answer."""
    if isinstance(message, ToolMessage):
        whole = message.artifact if isinstance(message.artifact, str) else message.text
        yield {"kind": "result", "call": message.name, "text": whole}
    elif isinstance(message, AIMessage):
        for call in message.tool_calls:
            yield {"kind": "call", "call": call["name"], "arguments": call["args"]}
        for broken in message.invalid_tool_calls:
            yield {"kind": "note", "text": f"→ a call that cannot be read: {broken['args']}"}
        if message.text:
            yield {"kind": "answer", "text": message.text}


def print_json(event: Event) -> None:
    """Print an event as one line of JSON, and an error on stderr as well."""
    print(json.dumps(event, ensure_ascii=False), flush=True)
    if event["kind"] == "error":
        print_error(event["text"])


def print_event(event: Event) -> None:
    """Print an event as text."""
    # Files, commands and models wrote this; what they hide from a terminal, a person would approve unseen.
    text = printable(event.get("text", ""))
    match event["kind"]:
        case "said":
            print(f"you> {text}")
        case "call":
            print(printable(f"→ {event['call']} {json.dumps(event['arguments'], ensure_ascii=False)}"))
        case "result":
            note("\n".join(f"  {line}" for line in event["text"].splitlines()))
        case "question":
            print(f"{printable(event['call'])} needs your leave:\n{text}\nyes or no?")
        case "answer":
            print(text)
        case "error":
            print_error(text)
        case _:
            note(text)
