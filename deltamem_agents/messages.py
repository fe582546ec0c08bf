"""Turn LangChain messages into what a chat template takes, and into the identities that absorbing goes by."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from backbone import PromptError
from deltamem_agents.window import Entry, Role
from deltamem_agents.working_memory import DIGEST_BYTES

__all__ = ["RECALLED_KEY", "UNWRITTEN", "is_written", "to_entries", "to_template_message", "with_text"]

UNWRITTEN = "delta_mem_unwritten"
"""A key in a message's additional_kwargs, or in a tool message's artifact: the memory must not be written with it."""

RECALLED_KEY = "recalled"
"""A key in a reply's response_metadata: what was recalled for it, and what became of each record."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
}
_TEXT_BLOCKS = {"text", "input_text", "output_text"}
# Said elsewhere on the message (calls), or not part of what a later turn should read (reasoning).
_SILENT_BLOCKS = {
    "tool_use",
    "tool_call",
    "tool_call_chunk",
    "invalid_tool_call",
    "input_json_delta",
    "function_call",
    "reasoning",
    "reasoning_content",
    "thinking",
    "redacted_thinking",
}


def to_entries(messages: Sequence[BaseMessage]) -> list[Entry]:
    """Give each message its identity, role and tool calls.

    The identity is the message's id; without one, its role, text and calls, counted among equal ones in the list.
    Raises PromptError for an empty list, an unknown role, or content that is not text.
    """
    if not messages:
        raise PromptError("the message list is empty; give at least one message")
    seen: Counter[str] = Counter()
    entries = []
    for message in messages:
        role = _role(message)
        if message.id is not None:
            identity = f"id\0{message.id}"
        else:
            content = f"content\0{role}\0{_text(message)}\0{_calls_key(message)}"
            seen[content] += 1
            identity = f"{content}\0{seen[content]}"
        digest = hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
        entries.append(Entry(digest, role, _call_ids(message), written=is_written(message)))
    return entries


def is_written(message: BaseMessage) -> bool:
    """Tell whether a message may be written to memory, working memory and archive alike."""
    artifact = message.artifact if isinstance(message, ToolMessage) else None
    return UNWRITTEN not in message.additional_kwargs and not (isinstance(artifact, dict) and UNWRITTEN in artifact)


def with_text(message: BaseMessage, text: str) -> BaseMessage:
    """Return a message with another text; blocks that are no text stay."""
    if isinstance(message.content, str):
        return message.model_copy(update={"content": text})
    others = [b for b in message.content if not isinstance(b, str) and b.get("type") not in _TEXT_BLOCKS]
    return message.model_copy(update={"content": [{"type": "text", "text": text}, *others]})


def to_template_message(message: BaseMessage) -> dict[str, Any]:
    """Turn one message into the OpenAI-shaped dict that chat templates read; arguments stay a dict.

    Lone surrogates, as Python makes them of file names that are not UTF-8, become U+FFFD.
    """
    role = _role(message)
    shaped: dict[str, Any] = {"role": role, "content": _text(message)}
    if isinstance(message, ToolMessage):
        shaped["tool_call_id"] = message.tool_call_id
        if message.name:
            shaped["name"] = message.name
    elif isinstance(message, AIMessage):
        # The model sees its own malformed call as it wrote it, so that the error that follows makes sense.
        raw = [call["args"] or "" for call in message.invalid_tool_calls]
        shaped["content"] = "\n".join(part for part in (shaped["content"], *raw) if part)
        if message.tool_calls:
            shaped["tool_calls"] = [
                {"type": "function", "id": call["id"], "function": {"name": call["name"], "arguments": call["args"]}}
                for call in message.tool_calls
            ]
    sound: dict[str, Any] = _without_surrogates(shaped)
    return sound


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        # Two surrogates that belong together become their character.
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, Mapping):
        return {_without_surrogates(key): _without_surrogates(part) for key, part in value.items()}
    return [_without_surrogates(part) for part in value] if isinstance(value, list | tuple) else value


def _role(message: BaseMessage) -> Role:
    if isinstance(message, AIMessage):
        return "assistant"
    if isinstance(message, HumanMessage):
        return "user"
    if isinstance(message, SystemMessage):
        return "system"
    if isinstance(message, ToolMessage):
        return "tool"
    if isinstance(message, ChatMessage) and message.role in _ROLES:
        return _ROLES[message.role]
    role = message.role if isinstance(message, ChatMessage) else message.type
    raise _unreadable(message, f"expected a message of role system, user, assistant or tool, got {role!r}")


def _call_ids(message: BaseMessage) -> tuple[str, ...]:
    if isinstance(message, ToolMessage):
        return (message.tool_call_id,)
    if isinstance(message, AIMessage):
        return tuple(call["id"] for call in (*message.tool_calls, *message.invalid_tool_calls) if call["id"])
    return ()


def _calls_key(message: BaseMessage) -> str:
    if isinstance(message, ToolMessage):
        return message.tool_call_id
    if isinstance(message, AIMessage):
        return json.dumps([[call["name"], call["args"]] for call in message.tool_calls], sort_keys=True, default=str)
    return ""


def _text(message: BaseMessage) -> str:
    """Join a message's text; raises PromptError for images and other content that a text model cannot read."""
    if isinstance(message.content, str):
        return message.content
    parts: list[str] = []
    for block in message.content:
        if isinstance(block, str):
            parts.append(block)
            continue
        kind = block.get("type")
        if kind in _TEXT_BLOCKS and isinstance(text := block.get("text"), str):
            parts.append(text)
        elif kind not in _SILENT_BLOCKS:
            raise _unreadable(
                message, f"expected text, got a content block of type {kind!r}; this model reads text only"
            )
    return "".join(parts)


def _unreadable(message: BaseMessage, why: str) -> PromptError:
    """Name the message and what to do about it: in a thread it would be in the way of every later turn."""
    if message.id is None:
        return PromptError(f"{why}; leave the message out")
    return PromptError(
        f"{why}; leave message {message.id} out: a thread that has it goes on once it is removed, "
        f'with graph.update_state(config, {{"messages": [RemoveMessage(id={message.id!r})]}})'
    )
