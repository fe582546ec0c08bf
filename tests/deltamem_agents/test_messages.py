"""LangChain messages as chat templates and the absorb plan see them."""

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from backbone import PromptError
from deltamem_agents.messages import to_entries, to_template_message

CALL = {"name": "run", "args": {"command": "make"}, "id": "c1", "type": "tool_call"}


def test_roles_text_and_calls_reach_the_template() -> None:
    """Every kind of message becomes the dict that chat templates read; arguments stay a dict."""
    assert to_template_message(SystemMessage("s")) == {"role": "system", "content": "s"}
    assert to_template_message(HumanMessage("h", name="ann")) == {"role": "user", "content": "h"}
    assert to_template_message(AIMessage("a", tool_calls=[CALL])) == {
        "role": "assistant",
        "content": "a",
        "tool_calls": [{"type": "function", "id": "c1", "function": {"name": "run", "arguments": {"command": "make"}}}],
    }
    assert to_template_message(ToolMessage("ok", tool_call_id="c1", name="run")) == {
        "role": "tool",
        "content": "ok",
        "tool_call_id": "c1",
        "name": "run",
    }
    assert to_template_message(ChatMessage("d", role="developer"))["role"] == "system"


def test_half_characters_become_replacement_characters() -> None:
    """What Python makes of a file name that is not UTF-8 can be shown to a model; whole characters stay."""
    call = {"name": "open", "args": {"paths": ["\udce9t\xe9", {"\ud83d": 1}]}, "id": "c1", "type": "tool_call"}
    assert to_template_message(ToolMessage("caf\udce9 \ud83d\ude00 \ufeffé 😀", tool_call_id="c1"))["content"] == (
        "caf\ufffd 😀 \ufeffé 😀"
    )
    (shown,) = to_template_message(AIMessage("", tool_calls=[call]))["tool_calls"]
    assert shown["function"]["arguments"] == {"paths": ["\ufffdt\xe9", {"\ufffd": 1}]}


def test_content_blocks_become_text_without_calls_and_reasoning() -> None:
    """Text blocks are joined; blocks that repeat a call or hold reasoning are left out."""
    blocks = [
        "one ",
        {"type": "text", "text": "two"},
        {"type": "thinking", "thinking": "hidden"},
        {"type": "tool_use", "id": "c1", "name": "run", "input": {}},
    ]
    assert to_template_message(AIMessage(blocks))["content"] == "one two"


def test_a_malformed_call_is_shown_to_the_model_as_it_wrote_it() -> None:
    """What could not be parsed stays in the assistant's text, so that the error about it makes sense."""
    broken = {
        "type": "invalid_tool_call",
        "name": None,
        "args": "<tool_call>\n{oops\n</tool_call>",
        "id": "x",
        "error": None,
    }
    assert (
        to_template_message(AIMessage("a", invalid_tool_calls=[broken]))["content"]
        == "a\n<tool_call>\n{oops\n</tool_call>"
    )


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (ChatMessage("x", role="narrator"), "narrator"),
        (FunctionMessage("x", name="f"), "function"),
        (RemoveMessage(id="1"), "remove"),
        (HumanMessage([{"type": "image_url", "image_url": {"url": "data:,"}}]), "image_url"),
        (HumanMessage([{"text": "no type"}]), "None"),
    ],
)
def test_what_a_text_model_cannot_read_is_refused_by_name(message: BaseMessage, said: str) -> None:
    """Unknown roles and content that is not text raise PromptError."""
    with pytest.raises(PromptError, match=said):
        to_template_message(message)


def test_an_empty_list_is_refused() -> None:
    """There is nothing to answer without messages."""
    with pytest.raises(PromptError, match="empty"):
        to_entries([])


def test_a_message_is_known_by_its_id_whatever_its_text() -> None:
    """The same id is the same message; different ids are different messages with equal text."""
    one, edited, other = (HumanMessage(text, id=name) for text, name in (("x", "1"), ("y", "1"), ("x", "2")))
    digests = [entry.digest for entry in to_entries([one, edited, other])]
    assert digests[0] == digests[1] != digests[2]


def test_messages_without_id_are_known_by_content_and_place_among_equal_ones() -> None:
    """Equal messages are told apart, and keep their identity when the list grows."""
    yes, no = HumanMessage("yes"), AIMessage("no")
    short = [entry.digest for entry in to_entries([yes, no, yes])]
    long = [entry.digest for entry in to_entries([yes, no, yes, no, AIMessage("no", tool_calls=[CALL])])]
    assert len(set(long)) == 5
    assert long[:3] == short


def test_calls_and_results_name_each_other() -> None:
    """Entries carry the ids by which a result is kept with its call."""
    entries = to_entries([AIMessage("", tool_calls=[CALL]), ToolMessage("ok", tool_call_id="c1")])
    assert [(entry.role, entry.call_ids) for entry in entries] == [("assistant", ("c1",)), ("tool", ("c1",))]
