"""Give tools and calls to templates that know no `tools` and no `tool_calls`, as SmolLM3's."""

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

__all__ = ["NAMED_APART", "fit_calls", "fit_tools", "report_unprinted"]

NAMED_APART = "xml_tools"

_log = logging.getLogger(__name__)


def fit_tools(source: str, tools: Sequence[Any] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template's options, with the tools as `xml_tools` where its source names that and not `tools`."""
    names = _names(source)
    if not tools or "tools" in names or NAMED_APART not in names:
        return dict(options)
    return {NAMED_APART: tools, **options}


def fit_calls(source: str, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages, each call written into its text as the model wrote it where the source prints no calls."""
    if "tool_calls" in source:
        return list(messages)
    return [_with_calls(message) if message.get("tool_calls") else message for message in messages]


def report_unprinted(source: str, tools: Sequence[Mapping[str, Any]], text: str) -> None:
    """Warn, once for each template and tool, of tools whose names are not in the rendered text."""
    for tool in tools:
        name = str(tool.get("function", tool).get("name"))
        if name not in text:
            _log_unprinted(source, name)


@functools.lru_cache(maxsize=16)
def _names(source: str) -> frozenset[str]:
    # Plain text such as `<tools>` is no name, so the lexer says what is.
    environment = jinja2.Environment()  # noqa: S701 (only the lexer is used)
    return frozenset(value for _, kind, value in environment.lex(source) if kind == "name")


def _with_calls(message: Mapping[str, Any]) -> dict[str, Any]:
    parts = [message.get("content") or ""]
    for call in message["tool_calls"]:
        told = {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
        parts.append(f"<tool_call>\n{json.dumps(told, ensure_ascii=False)}\n</tool_call>")
    return {**message, "content": "\n".join(part for part in parts if part)}


@functools.lru_cache(maxsize=64)
def _log_unprinted(source: str, name: str) -> None:
    _log.warning(
        "this chat template (%d characters) does not print the tool %s: the model cannot see it", len(source), name
    )
