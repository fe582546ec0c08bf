"""Render messages and tools with a model's chat template, and tell which tokens belong to which message."""

import functools
import logging
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2

from backbone.chat.control import encode, part_spelled, strings_of
from backbone.chat.marks import MARK_KEY, add_marks, choose_starts, free_characters, remove_marks
from backbone.chat.sentences import sentence_numbers
from backbone.chat.tools import fit_calls, fit_tools, report_unprinted
from backbone.errors import PromptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ROLES", "RenderedPrompt", "render_prompt"]

ROLES = ("system", "user", "assistant", "tool")

_SURROGATE = re.compile(r"[\ud800-\udfff]")

_log = logging.getLogger(__name__)


class RenderedPrompt(NamedTuple):
    """Hold a prompt's token ids and one half-open token span [start, end) for each message, in order, without gaps.

    What stands before the first message (BOS, a tool preamble) belongs to a leading system message, else to none; the
    generation prompt lies after the last span. A system message that was moved to the front has an empty span.
    sentences: the number of each token's sentence, -1 for tokens of the template, or None if they were not asked for.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    sentences: tuple[int, ...] | None = None


def render_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = True,
    number_sentences: bool = False,
    **template_options: Any,
) -> RenderedPrompt:
    """Return the ids that the chat template gives for OpenAI-shaped messages and tools, and each message's span.

    tool_calls carry their arguments as a dict. template_options go to the template (enable_thinking=False).
    System messages that the template refuses or leaves out where they stand are moved into the first one.
    A template that takes tools as xml_tools, or prints no calls, gets them in its way; a tool that is not printed is
    logged. Control tokens that a message or a tool spells are encoded as text. number_sentences: say which sentence
    each token is of. Raises PromptError for no messages, an unknown role, content that is not text, lone surrogates,
    and whatever the template refuses.
    """
    _check(tokenizer, messages, tools or ())
    parted, parted_tools, parting = part_spelled(tokenizer, messages, tools or ())
    chat = _fitted(_Chat(tokenizer, parted, parted_tools or None, template_options))
    kept = list(range(len(messages)))
    if _systems_out_of_place(messages):
        chat, kept = _with_systems_in_place(chat)
    text = chat.render(chat.messages, add_generation_prompt)
    report_unprinted(chat.source(), parted_tools, text)
    boundaries = [
        *_message_starts(chat, text, add_generation_prompt),
        _end_of_messages(chat, text, add_generation_prompt),
    ]
    ids, ends = encode(tokenizer, text, parting)
    # A token that reaches over a boundary belongs to the message it ends in.
    spans = list(pairwise(bisect_right(ends, boundary) for boundary in boundaries))
    sentences = None
    if number_sentences:
        sentences = sentence_numbers(chat.messages, boundaries, _content_starts(chat, text, boundaries), ends)
    return RenderedPrompt(tuple(ids), _spread(spans, kept, len(messages)), sentences)


class _Chat(NamedTuple):
    """Hold what a template is rendered with."""

    tokenizer: "PreTrainedTokenizerBase"
    messages: list[dict[str, Any]]
    tools: list[Any] | None
    options: dict[str, Any]

    def render(self, messages: list[dict[str, Any]], generation_prompt: bool, source: str | None = None) -> str:
        """Return the text of some messages, from the model's own template or from another source."""
        options = self.options if source is None else {**self.options, "chat_template": source}
        options = {**options, "tokenize": False, "add_generation_prompt": generation_prompt}
        try:
            return str(self.tokenizer.apply_chat_template(messages, tools=self.tools, **options))
        except Exception as error:  # a template is somebody's program, and what it raises is its way to refuse
            raise PromptError(f"the model's chat template refuses these messages: {error}") from error

    def source(self) -> str:
        """Return the template that these messages are rendered with; models may have several."""
        source: str = self.tokenizer.get_chat_template(self.options.get("chat_template"), self.tools)
        return source


def _fitted(chat: _Chat) -> _Chat:
    """Return the chat with its tools and calls in the form that its template prints."""
    try:
        source = chat.source()
        options = fit_tools(source, chat.tools, chat.options)
    except (ValueError, jinja2.TemplateSyntaxError):
        return chat  # there is no template, or it is none; rendering says so
    return chat._replace(messages=fit_calls(source, chat.messages), options=options)


def _check(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> None:
    if not tokenizer.is_fast:
        raise PromptError(
            f"{type(tokenizer).__name__} gives no character offsets; load the fast tokenizer of this model"
        )
    if not messages:
        raise PromptError(f"there are no messages to make a prompt of; give at least one, with a role of {ROLES}")
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise PromptError(f"message {number} has the role {role!r}; allowed are {', '.join(ROLES)}")
        if content is not None and not isinstance(content, str):
            raise PromptError(f"message {number} has content of type {type(content).__name__}; a string is expected")
        _check_surrogates(f"message {number}", message)
    for number, tool in enumerate(tools):
        _check_surrogates(f"tool {number}", tool)


def _check_surrogates(what: str, value: Mapping[str, Any]) -> None:
    if any(_SURROGATE.search(text) for text in strings_of(value)):
        raise PromptError(f"{what} holds a lone surrogate, which is half a character; replace it")


def _message_starts(chat: _Chat, text: str, generation_prompt: bool) -> list[int]:
    """Return where each message begins in the rendered text."""
    marked_messages = [{**message, MARK_KEY: str(number)} for number, message in enumerate(chat.messages)]
    characters = free_characters(text)
    source = add_marks(chat.source(), characters)
    marked = remove_marks(chat.render(marked_messages, generation_prompt, source), characters)
    starts = choose_starts(marked.loops) if marked.text == text else []
    leading = starts[0][0] if starts else len(chat.messages)
    if leading + len(starts) != len(chat.messages):
        leading, starts = len(chat.messages), []
    positions = [_start_by_content(chat, text, number) for number in range(leading)] + [place for _, place in starts]
    if chat.messages[0]["role"] == "system":
        positions[0] = 0
    if positions != sorted(positions):
        raise PromptError(
            "the model's chat template prints messages out of order, so their tokens cannot be told apart"
        )
    return positions


def _start_by_content(chat: _Chat, text: str, number: int) -> int:
    """Return where a message begins that the template prints outside its loop: where the text changes with it."""
    return 0 if number == 0 else _change_by_content(chat, text, number)


def _change_by_content(chat: _Chat, text: str, number: int) -> int:
    """Return where the rendered text changes if a message's content begins with one more character."""
    message = chat.messages[number]
    changed = {**message, "content": free_characters(text)[0] + (message.get("content") or "")}
    return _common_prefix(text, chat.render([*chat.messages[:number], changed, *chat.messages[number + 1 :]], True))


def _content_starts(chat: _Chat, text: str, boundaries: Sequence[int]) -> list[int]:
    """Return where each message's content begins, -1 for a message with none or whose content is printed otherwise."""
    starts: list[int] = []
    for number, message in enumerate(chat.messages):
        content = message.get("content") or ""
        begin, end = boundaries[number : number + 2]
        start = text.find(content, begin, end) if content else -1
        if start >= 0 and text.find(content, start + 1, end) >= 0:
            # What the template prints around it holds the same characters.
            start = _change_by_content(chat, text, number)
        starts.append(start if start >= 0 and text.startswith(content, start) else -1)
    return starts


def _end_of_messages(chat: _Chat, text: str, generation_prompt: bool) -> int:
    """Return where the last message ends and the generation prompt begins."""
    if not generation_prompt:
        return len(text)
    return _common_prefix(text, chat.render(chat.messages, False))


def _common_prefix(one: str, other: str) -> int:
    """Return how many characters two texts begin with in common."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _systems_out_of_place(messages: Sequence[Mapping[str, Any]]) -> bool:
    return any(message["role"] == "system" for message in messages[1:])


def _with_systems_in_place(chat: _Chat) -> tuple[_Chat, list[int]]:
    """Return the chat as the template takes it, and the numbers of the messages that are left, -1 for one added before.

    The system messages stay where they are if the template prints them all; otherwise the first message holds them all.
    """
    systems = [message.get("content") or "" for message in chat.messages if message["role"] == "system"]
    try:
        text = chat.render(chat.messages, False)
        if all(content.strip() in text for content in systems):
            return chat, list(range(len(chat.messages)))
    except PromptError:
        pass  # the merged form may be accepted; if not, that error is the one to report
    _log_merge(chat.source())
    others = [number for number, message in enumerate(chat.messages) if message["role"] != "system"]
    first = {"role": "system", "content": "\n\n".join(systems)}
    lead = 0 if chat.messages[0]["role"] == "system" else -1  # -1: before every message, so that spans stay in order
    return chat._replace(messages=[first, *(chat.messages[number] for number in others)]), [lead, *others]


@functools.lru_cache(maxsize=16)
def _log_merge(source: str) -> None:
    """Say it once for each template."""
    _log.warning(
        "this chat template (%d characters) takes one system message, at the start: merging them there", len(source)
    )


def _spread(spans: list[tuple[int, int]], kept: list[int], count: int) -> tuple[tuple[int, int], ...]:
    """Give the messages that were moved away empty spans, between those of their neighbours."""
    found = dict(zip(kept, spans, strict=True))
    result: list[tuple[int, int]] = []
    end = found[-1][1] if -1 in found else spans[0][0]
    for number in range(count):
        result.append(found.get(number, (end, end)))
        end = result[-1][1]
    return tuple(result)
