"""Say what a reply must look like: tool choice and response format in all the forms that callers use."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import (
    BaseCumulativeTransformOutputParser,
    JsonOutputParser,
    PydanticOutputParser,
)
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from backbone import ConfigError, Constraint, json_schema_constraint, tool_call_constraint

__all__ = ["Shape", "StructuredMethod", "output_parser", "reply_shape", "structured_call", "with_parser"]

Schema = Mapping[str, Any]
StructuredMethod = Literal["function_calling", "json_schema", "json_mode"]


@dataclass(frozen=True, slots=True)
class Shape:
    """Hold the tools a prompt lists, and what the reply is forced to be.

    constrain: makes the constraint from a tokenizer; None leaves the model free. plain: the reply is JSON, not a call.
    """

    tools: tuple[Schema, ...] = ()
    constrain: Callable[[Any], Constraint] | None = None
    plain: bool = False


def reply_shape(tools: Sequence[Schema], tool_choice: Any, response_format: Any, *, many: bool) -> Shape:
    """Read tool_choice and response_format as hosted models take them.

    tool_choice: None, "auto", "none", "any", "required", True, False, a tool's name, or {"type": "function",
    "function": {"name": ...}}. response_format: None or {"type": "text" | "json_object" | "json_schema", ...}.
    many: a forced reply may hold several calls. Raises ConfigError for anything else.
    """
    schema = _response_schema(response_format)
    names = [str(tool["function"]["name"]) for tool in tools]
    forced = _forced_names(tool_choice, names)
    if schema is not None:
        if forced is not None:
            raise ConfigError("a reply cannot be both a forced tool call and JSON; give tool_choice or response_format")
        return Shape((), lambda tokenizer: json_schema_constraint(tokenizer, schema), plain=True)
    if tool_choice == "none":
        return Shape()
    if forced is None:
        return Shape(tuple(tools))
    return Shape(tuple(tools), lambda tokenizer: tool_call_constraint(tokenizer, list(tools), forced, many=many))


def _forced_names(choice: Any, names: list[str]) -> list[str] | None:
    """Return the tools of which one must be called, or None if none must."""
    if isinstance(choice, Mapping):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
        if choice.get("type") not in {"function", "tool"} or not isinstance(name, str):
            raise ConfigError(
                f"a tool_choice mapping is {{'type': 'function', 'function': {{'name': …}}}}, got {choice!r}"
            )
        choice = name
        if choice not in names:
            raise ConfigError(f"tool_choice asks for {choice!r}, but the tools are {names}")
        return [choice]
    # Anything may be given, so it is compared and not looked up: a list has no hash, and 0 equals False.
    if choice is None or choice is False or choice in ("auto", "none"):
        return None
    if choice is True or choice in ("any", "required"):
        if not names:
            raise ConfigError(f"tool_choice {choice!r} forces a call, but no tools are bound; bind at least one")
        return names
    if choice in names:
        return [choice]
    raise ConfigError(f"tool_choice is auto, none, any, required, True or one of the tools {names}, got {choice!r}")


def _response_schema(response_format: Any) -> Schema | None:
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind == "json_schema":
        described = response_format.get("json_schema")
        schema = described.get("schema") if isinstance(described, Mapping) else None
        if isinstance(schema, Mapping):
            return schema
    raise ConfigError(
        "response_format is {'type': 'text'}, {'type': 'json_object'} or {'type': 'json_schema', 'json_schema': "
        f"{{'name': …, 'schema': …}}}}, got {response_format!r}"
    )


def structured_call(schema: Any, method: StructuredMethod) -> dict[str, Any]:
    """Return the call options that make the reply fit a schema (pydantic class, TypedDict or JSON schema)."""
    told = {"ls_structured_output_format": {"kwargs": {"method": method}, "schema": schema}}
    if method == "function_calling":
        return {"tools": [convert_to_openai_tool(schema)], "tool_choice": "any", **told}
    if method in ("json_schema", "json_mode"):
        described = {"name": "reply", "schema": convert_to_json_schema(schema)}
        return {"response_format": {"type": "json_schema", "json_schema": described}, **told}
    raise ConfigError(f"method is function_calling, json_schema or json_mode, got {method!r}")


def output_parser(schema: Any, method: StructuredMethod) -> Runnable[Any, Any]:
    """Return what turns the reply into an instance of a pydantic schema, or into a dict for the other kinds."""
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    if method == "function_calling":
        if is_class:
            return PydanticToolsParser(tools=[schema], first_tool_only=True)
        name = convert_to_openai_tool(schema)["function"]["name"]
        return JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
    return PydanticOutputParser(pydantic_object=schema) if is_class else _CompleteJsonParser()


def with_parser(
    model: Runnable[LanguageModelInput, AIMessage], parser: Runnable[Any, Any], *, include_raw: bool
) -> Runnable[LanguageModelInput, Any]:
    """Join model and parser; include_raw gives {"raw", "parsed", "parsing_error"} and raises no parsing error."""
    if not include_raw:
        return model | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")


class _CompleteJsonParser(BaseCumulativeTransformOutputParser[Any]):
    """Parse JSON as it streams in, and refuse a reply that was cut off instead of guessing its end."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse the reply; raises OutputParserException if max_tokens cut it off."""
        first = result[0]
        message = first.message if isinstance(first, ChatGeneration) else None
        if not partial and message is not None and message.response_metadata.get("finish_reason") == "length":
            raise OutputParserException("the reply was cut off by max_tokens before its JSON was complete; raise it")
        return JsonOutputParser().parse_result(result, partial=partial)

    def parse(self, text: str) -> Any:
        """Parse a whole reply's text."""
        return self.parse_result([Generation(text=text)])
