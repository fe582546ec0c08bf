"""Check the spans of templates shaped like those of the δ-mem paper's backbones, in each of their modes."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from backbone.chat.template import render_prompt

THOUGHT = "<think>\nI look it up.\n</think>\n\n"
CALL = {"type": "function", "id": "1", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
EARLIER: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHi."},
]
# A question, and a reply that has called a tool and is not finished.
WORKING = [
    *EARLIER,
    {"role": "user", "content": "The weather?"},
    {"role": "assistant", "content": THOUGHT, "tool_calls": [CALL]},
    {"role": "tool", "content": "rain", "tool_call_id": "1"},
]


@pytest.fixture
def parts(shaped: dict[str, PreTrainedTokenizerFast]) -> Callable[..., list[str]]:
    """Render with a shape, and return the text of each message and of the generation prompt."""

    def render(shape: str, messages: list[dict[str, Any]], **options: Any) -> list[str]:
        tokenizer = shaped[shape]
        rendered = render_prompt(tokenizer, messages, **options)
        assert rendered.spans[0][0] == 0
        edges = [start for start, _ in rendered.spans] + [rendered.spans[-1][1], len(rendered.ids)]
        expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, **options)["input_ids"]
        assert list(rendered.ids) == expected
        return [tokenizer.decode(list(rendered.ids[start:end])) for start, end in pairwise(edges)]

    return render


def test_qwen3_instruct_prints_what_was_said(parts: Callable[..., list[str]]) -> None:
    """An instruct model has no reasoning: nothing is taken out of a message, and the reply begins with its text."""
    system, hello, greeting, question, call, rain, prompt = parts("qwen3_instruct", WORKING, tools=[TOOL])
    assert system.startswith("<|im_start|>system\nBe brief.\n\n# Tools")
    assert system.endswith("</tools><|im_end|>\n")
    assert hello == "<|im_start|>user\nhello<|im_end|>\n"
    assert greeting == "<|im_start|>assistant\n<think>\nA greeting.\n</think>\n\nHi.<|im_end|>\n"
    assert question == "<|im_start|>user\nThe weather?<|im_end|>\n"
    assert call.startswith(f"<|im_start|>assistant\n{THOUGHT}")
    assert call.endswith('{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>\n')
    assert rain == "<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n"
    assert prompt == "<|im_start|>assistant\n"


def test_qwen3_thinking_opens_its_reasoning_outside_every_message(parts: Callable[..., list[str]]) -> None:
    """The opening tag belongs to the generation prompt, and no message owns it."""
    *_, question, prompt = parts("qwen3_thinking", [*EARLIER, {"role": "user", "content": "bye"}])
    assert question == "<|im_start|>user\nbye<|im_end|>\n"
    assert prompt == "<|im_start|>assistant\n<think>\n"


@pytest.mark.parametrize("shape", ["qwen3", "qwen3_thinking"])
def test_qwen3_keeps_the_reasoning_of_an_unfinished_reply_only(shape: str, parts: Callable[..., list[str]]) -> None:
    """Reasoning before the last question is left out of its message's span; reasoning after it lies inside."""
    _, _, greeting, _, call, rain, _ = parts(shape, WORKING)
    assert greeting == "<|im_start|>assistant\nHi.<|im_end|>\n"
    assert call.startswith(f"<|im_start|>assistant\n{THOUGHT}")
    assert "get_weather" in call
    assert rain == "<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n"


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ({}, "<|im_start|>assistant\n"),
        ({"enable_thinking": True}, "<|im_start|>assistant\n"),
        ({"enable_thinking": False}, "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    ],
    ids=str,
)
def test_qwen3_thinking_is_switched_in_the_generation_prompt(
    options: dict[str, Any], prompt: str, parts: Callable[..., list[str]]
) -> None:
    """Switched off, the empty reasoning is nobody's; every message's text is the same either way."""
    *messages, found = parts("qwen3", WORKING, **options)
    assert found == prompt
    assert messages == parts("qwen3", WORKING)[:-1]


@pytest.mark.parametrize(
    ("system", "options", "mode"),
    [
        ("Be brief.", {}, "/think"),
        ("Be brief.", {"enable_thinking": False}, "/no_think"),
        ("Be brief. /no_think", {}, "/no_think"),
        ("Be brief. /think", {"enable_thinking": False}, "/think"),
    ],
    ids=str,
)
def test_smollm3_modes(system: str, options: dict[str, Any], mode: str, parts: Callable[..., list[str]]) -> None:
    """The mode is the system block's; without reasoning, each reply has an empty one inside its own span."""
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "\nHi."},
    ]
    block, hello, greeting, prompt = parts("smollm3_modes", messages, **options)
    empty = "" if mode == "/think" else "<think>\n\n</think>\n"
    assert block.startswith(f"<|im_start|>system\nMode: {mode}\n")
    assert block.endswith("\n\nBe brief.<|im_end|>\n")
    assert hello == "<|im_start|>user\nhello<|im_end|>\n"
    assert greeting == f"<|im_start|>assistant\n{empty}Hi.<|im_end|>\n"
    assert prompt == f"<|im_start|>assistant\n{empty}"


@pytest.mark.parametrize("shape", ["smollm3", "smollm3_modes"])
@pytest.mark.parametrize("given", ["tools", "xml_tools"])
def test_smollm3_tools_are_the_system_messages(
    shape: str, given: str, shaped: dict[str, PreTrainedTokenizerFast], caplog: pytest.LogCaptureFixture
) -> None:
    """Tools that a template takes by a name of its own reach it, however they are given, in the system message."""
    options: dict[str, Any] = {given: [TOOL]}
    rendered = render_prompt(shaped[shape], WORKING, **options)
    expected = render_prompt(shaped[shape], WORKING, xml_tools=[TOOL])
    assert rendered == expected
    block = shaped[shape].decode(list(rendered.ids[: rendered.spans[0][1]]))
    assert block.count("get_weather") == 1
    assert "<|im_start|>user" not in block
    assert caplog.text == ""


@pytest.mark.parametrize("shape", ["smollm3", "smollm3_modes"])
def test_smollm3_sees_what_it_has_called(shape: str, shaped: dict[str, PreTrainedTokenizerFast]) -> None:
    """A template that prints no calls is given them in the words of the reply, in that reply's span."""
    rendered = render_prompt(shaped[shape], WORKING, [TOOL])
    call, rain = (shaped[shape].decode(list(rendered.ids[start:end])) for start, end in rendered.spans[-2:])
    assert call.count("I look it up.") == 1
    assert (
        call.count('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>') == 1
    )
    assert "rain" in rain
    assert "tool_call" not in rain


def test_a_tool_that_no_template_prints_is_logged_once(
    shaped: dict[str, PreTrainedTokenizerFast], caplog: pytest.LogCaptureFixture
) -> None:
    """A model that cannot see a tool cannot call it, and the log says so by the tool's name."""
    for _ in range(2):
        render_prompt(shaped["alternating"], [{"role": "user", "content": "The weather?"}], [TOOL])
    assert caplog.text.count("does not print the tool get_weather") == 1
