import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from transformers import PreTrainedTokenizerFast

from backbone import MemoryModel
from backbone.chat.tool_calls import ToolCall, ToolCallParser
from backbone.constraint import GrammarConstraint, json_schema_constraint, tool_call_constraint
from backbone.errors import ConfigError
from backbone.generation import Sampling, TokenPrompt, decode, prefill

VOCABULARY = 400  # as a padded model has it: the tokenizer ends before
LIMIT = 3000

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "wind": {"type": "number"}},
    "required": ["city", "days"],
}


def function(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **({"parameters": parameters} if parameters else {})}}


TOOLS = [function("get_weather", **WEATHER), function("now", type="object", properties={}), function("stop")]


def write(constraint: GrammarConstraint, tokenizer: PreTrainedTokenizerFast, seed: int) -> str | None:
    """Decode with the fixed taste of an untrained model: some tokens always before others; None if it never ends."""
    generator = torch.Generator().manual_seed(seed)
    taste = torch.randn(VOCABULARY, generator=generator) * 3
    ids: list[int] = []
    while not constraint.done and len(ids) < LIMIT:
        masked = constraint.mask(taste + torch.rand(VOCABULARY, generator=generator))
        token = int(masked.argmax())
        assert token < len(tokenizer)
        if token == tokenizer.eos_token_id:
            break
        constraint.accept(token)
        ids.append(token)
    return None if len(ids) == LIMIT else tokenizer.decode(ids)


SCHEMAS: dict[str, dict[str, Any]] = {
    "object": WEATHER,
    "string": {"type": "string"},
    "long string": {"type": "string", "minLength": 220},
    "short string": {"type": "string", "maxLength": 3},
    "pattern": {"type": "string", "pattern": "^[a-z]+-[0-9]+$"},
    "date": {"type": "string", "format": "date-time"},
    "integer": {"type": "integer"},
    "integer from": {"type": "integer", "minimum": 1},
    "integer below": {"type": "integer", "maximum": -(10**17)},
    "integer between": {"type": "integer", "exclusiveMinimum": -1000, "exclusiveMaximum": 1000},
    "number": {"type": "number"},
    "number above": {"type": "number", "exclusiveMinimum": 0},
    "narrow number": {"type": "number", "minimum": 0.25, "maximum": 0.2501},
    "one number": {"type": "number", "minimum": 2, "maximum": 2},
    "array": {"type": "array", "items": {"type": "boolean"}},
    "array of anything": {"type": "array"},
    "long array": {"type": "array", "items": {"type": "null"}, "minItems": 12},
    "optional": {
        "type": "object",
        "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}},
    },
    "nullable": {"type": ["string", "null"]},
    "enum": {"enum": ["a", 2, None]},
    "const": {"const": {"a": 1}},
    "dict": {"type": "object", "additionalProperties": {"type": "integer"}},
    "object and more": {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": {"type": "boolean"},
    },
    "anything": {"description": "whatever"},
    "no type": {"properties": {"a": {"type": "boolean"}}, "required": ["a"]},
    "items without type": {"items": {"type": "boolean"}},
    "pattern without type": {"pattern": "^[a-z]{2}$"},
    "length without type": {"minLength": 3, "maxLength": 5},
    "range without type": {"minimum": 3, "maximum": 4},
    "count without type": {"minItems": 2},
    "values without type": {"additionalProperties": {"type": "boolean"}, "minProperties": 1},
    "many required": {"required": list("abcdefghij"), "additionalProperties": {"type": "boolean"}},
    "two types by keywords": {"minimum": 3, "maxLength": 2},
    "range of all": {"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 2000}]},
    "pattern of all": {"allOf": [{"type": "string"}, {"pattern": "^a{2,4}$"}]},
    "one of two required": {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "null"}}, "b": {"type": "boolean"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "nullable beside a length": {"anyOf": [{"type": "string"}, {"type": "null"}], "maxLength": 2},
    "definitions": {
        "$defs": {"Point": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
        "type": "object",
        "properties": {"points": {"type": "array", "items": {"$ref": "#/$defs/Point"}}},
        "required": ["points"],
    },
    "one of all": {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}]},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_untrained_model_ends_with_a_value_that_fits(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Whatever tokens a model prefers, the reply ends and fits the schema, spaced as json.dumps spaces it."""
    for seed in range(4):
        text = write(json_schema_constraint(tokenizer, SCHEMAS[name]), tokenizer, seed)
        assert text is not None
        Draft202012Validator(SCHEMAS[name]).validate(json.loads(text))
        outside_strings = re.sub(r'"(\\.|[^"\\])*"', "s", text)
        assert not re.search(r"[,:](?! )|\s(?=[\s,:\]}])|[\[{]\s", outside_strings)


def test_strings_are_bounded_unless_the_schema_bounds_them(tokenizer: PreTrainedTokenizerFast) -> None:
    """A free string has at most 200 characters, one with a maxLength as many as that says."""
    for schema, longest in (({"type": "string"}, 200), ({"type": "string", "maxLength": 250}, 250)):
        texts = [write(json_schema_constraint(tokenizer, schema), tokenizer, seed) or '""' for seed in range(4)]
        assert max(len(json.loads(text)) for text in texts) == longest


@pytest.mark.parametrize(
    ("schema", "fits", "fits_not"),
    [
        ({"pattern": "^a"}, '"ab"', '"b'),
        ({"maxLength": 2}, '"ab"', '"abc'),
        ({"minimum": 3}, "3.5", "-"),
        ({"required": ["a"]}, '{"a": 1}', "{}"),
        ({"minItems": 1}, "[1]", "[]"),
        ({"pattern": "^a", "description": "a word"}, '"a"', "1"),
    ],
)
def test_keywords_bind_without_a_type(
    schema: dict[str, Any], fits: str, fits_not: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    """A schema that names no type is one of the type that its keywords are about."""
    for text, good in ((fits, True), (fits_not, False)):
        constraint = json_schema_constraint(tokenizer, schema)
        try:
            for token in tokenizer.encode(text, add_special_tokens=False):
                constraint.accept(token)
            assert good
        except ConfigError:
            assert not good


def test_objects_that_list_their_properties_have_no_others(tokenizer: PreTrainedTokenizerFast) -> None:
    """Without additionalProperties only the listed ones come, in their order."""
    for seed in range(6):
        value = json.loads(write(json_schema_constraint(tokenizer, WEATHER), tokenizer, seed) or "")
        assert list(value) in (["city", "days"], ["city", "days", "wind"])


def test_parts_of_an_all_of_do_not_close_each_other(tokenizer: PreTrainedTokenizerFast) -> None:
    """Properties that two parts of an allOf list can both come."""
    parts = [{"type": "object", "properties": {key: {"const": 1}}, "required": [key]} for key in "ab"]
    constraint = json_schema_constraint(tokenizer, {"allOf": parts})
    for token in tokenizer.encode('{"a": 1, "b": 1}', add_special_tokens=False):
        constraint.accept(token)


@pytest.mark.parametrize("tags", [True, False], ids=["tags", "plain text"])
@pytest.mark.parametrize("many", [True, False], ids=["many", "one"])
def test_forced_calls_are_calls(tags: bool, many: bool, make_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> None:
    """The reply is nothing but calls in the Hermes form, exactly one unless many are allowed, each fitting its tool."""
    tokenizer = make_tokenizer(tags=tags)
    counts = []
    for seed in range(6):
        text = write(tool_call_constraint(tokenizer, TOOLS, many=many), tokenizer, seed)
        assert text is not None
        parser = ToolCallParser()
        events = parser.feed(text) + parser.finish()
        for event in events:
            assert isinstance(event, ToolCall)
            if event.name == "get_weather":
                Draft202012Validator(WEATHER).validate(event.arguments)
            else:
                assert (event.name, event.arguments) in (("now", {}), ("stop", {}))
        counts.append(len(events))
        if not any(isinstance(event, ToolCall) and event.arguments for event in events):
            assert text == "\n".join(
                f'<tool_call>\n{{"name": "{event.name}", "arguments": {{}}}}\n</tool_call>'
                for event in events
                if isinstance(event, ToolCall)
            )
    assert max(counts) == (8 if many else 1)
    assert min(counts) == 1


def test_only_the_named_tools_can_be_called(tokenizer: PreTrainedTokenizerFast) -> None:
    """A forced name is the name that comes, and the reply is settled to the end."""
    text = write(tool_call_constraint(tokenizer, TOOLS, ["now"], many=False), tokenizer, 0)
    assert text == '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def test_settled_text_is_cut_into_tokens_as_the_tokenizer_cuts_it(tokenizer: PreTrainedTokenizerFast) -> None:
    """Where only one text can come, its tokens are those of training, the call tags among them."""
    expected = tokenizer.encode('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', add_special_tokens=False)
    constraint = tool_call_constraint(tokenizer, TOOLS, ["now"], many=False)
    for token in expected:
        assert not constraint.done
        masked = constraint.mask(torch.zeros(VOCABULARY))
        assert masked.isfinite().nonzero().flatten().tolist() == [token]
        constraint.accept(token)
    assert constraint.done


def test_the_mask_fits_any_vocabulary(tokenizer: PreTrainedTokenizerFast) -> None:
    """Padding behind the tokenizer's vocabulary is never allowed, and a smaller one is no trouble."""
    for size in (len(tokenizer), VOCABULARY, 8192, 300):
        masked = json_schema_constraint(tokenizer, {"type": "string"}).mask(torch.zeros(size))
        assert masked.shape == (size,)
        assert masked[:300].isfinite().any()
        assert not masked[len(tokenizer) :].isfinite().any()


def test_an_optional_end_is_left_to_the_model(tokenizer: PreTrainedTokenizerFast) -> None:
    """After a complete value that could go on, the end token is allowed and the constraint is not done."""
    constraint = json_schema_constraint(tokenizer, {"type": "integer"})
    constraint.accept(tokenizer.encode("5")[0])
    masked = constraint.mask(torch.zeros(VOCABULARY))
    assert not constraint.done
    assert masked[tokenizer.eos_token_id].isfinite()
    assert masked[tokenizer.encode("7")[0]].isfinite()


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_every_allowed_token_is_accepted(tokenizer: PreTrainedTokenizerFast, data: st.DataObject) -> None:
    """Any walk through the allowed tokens is a legal one."""
    constraint = json_schema_constraint(tokenizer, WEATHER)
    for _ in range(25):
        allowed = constraint.mask(torch.zeros(VOCABULARY)).isfinite().nonzero().flatten().tolist()
        assert allowed
        token = data.draw(st.sampled_from(allowed))
        if token == tokenizer.eos_token_id or constraint.done:
            break
        constraint.accept(token)


def test_decoding_with_a_model_is_forced(model: MemoryModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """A random model, sampled at a high temperature, writes a well-formed call and stops by itself."""
    steps = prefill(model, TokenPrompt((5, 6, 7), (True,) * 3), None)
    with pytest.raises(StopIteration) as end:
        next(steps)
    city = {"type": "string", "maxLength": 10}
    weather = {**WEATHER, "properties": {**WEATHER["properties"], "city": city}}
    constraint = tool_call_constraint(tokenizer, [function("get_weather", **weather)], many=False)
    sampling = Sampling(max_tokens=200, temperature=2.0, seed=1)
    reply = decode(model, end.value.value, sampling, eos_ids={tokenizer.eos_token_id}, constraint=constraint)
    parser = ToolCallParser()
    (call,) = parser.feed(tokenizer.decode(list(reply))) + parser.finish()
    assert isinstance(call, ToolCall)
    Draft202012Validator(weather).validate(call.arguments)


def test_keywords_that_cannot_be_enforced_are_named_in_the_log(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest of the schema is enforced all the same."""
    caplog.set_level(logging.WARNING)
    schema = {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "maxItems": 1}
    assert write(json_schema_constraint(tokenizer, schema), tokenizer, 0) in ("[]", "[true]", "[false]")
    assert "uniqueItems" in caplog.text


def test_a_token_that_may_not_come_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    """Accepting what the mask forbids is an error, and so is going on after it."""
    constraint = json_schema_constraint(tokenizer, {"type": "integer"})
    with pytest.raises(ConfigError, match="cannot be enforced"):
        constraint.accept(tokenizer.encode("x")[0])
    with pytest.raises(ConfigError, match="cannot be enforced"):
        constraint.mask(torch.zeros(VOCABULARY))


def test_what_cannot_be_forced_is_refused(make_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> None:
    """No tools, unknown names, impossible schemas and tokenizers without an end are ConfigErrors that say so."""
    tokenizer = make_tokenizer()
    with pytest.raises(ConfigError, match=r"one of \[\], got \[\]"):
        tool_call_constraint(tokenizer, [], many=True)
    with pytest.raises(ConfigError, match=r"one of \['get_weather', 'now', 'stop'\], got \['fly'\]"):
        tool_call_constraint(tokenizer, TOOLS, ["now", "fly"], many=True)
    with pytest.raises(ConfigError, match=r"cannot be enforced: .*Unsatisfiable"):
        json_schema_constraint(tokenizer, {"type": "integer", "minimum": 2, "maximum": 1})
    endless = make_tokenizer()
    endless.eos_token = None
    with pytest.raises(ConfigError, match="end token"):
        json_schema_constraint(endless, {"type": "integer"})
