from collections.abc import Callable
from itertools import groupby, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from backbone.chat.sentences import sentence_starts
from backbone.chat.template import render_prompt


def sentences(text: str) -> list[str]:
    starts = [*sentence_starts(text), len(text)]
    return [text[start:end] for start, end in pairwise(starts)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n ", []),
        ("One thing", ["One thing"]),
        ("One. Two! Three?", ["One.", " Two!", " Three?"]),
        ("First: this; then that.", ["First:", " this;", " then that."]),
        ("v1.2 is out", ["v1.2 is out"]),
        ('He said "no." She left.', ['He said "no.', '" She left.']),
        ("A title\n\n\nA text\nof two lines", ["A title", "\n\n\nA text\nof two lines"]),
        ("One. \n\n Two. ", ["One.", " \n\n Two. "]),
    ],
)
def test_sentences_end_at_marks_and_blank_lines(text: str, expected: list[str]) -> None:
    """A sentence ends after . ! ? ; : before white space, and before a blank line; white space begins the next one."""
    assert sentences(text) == expected


@given(st.text(alphabet='ab.!\n "”'))
def test_sentences_are_the_text_and_none_is_blank(text: str) -> None:
    """Sentences cover a text without a gap, and each of them says something."""
    found = sentences(text)
    assert "".join(found) == (text if text.strip() else "")
    assert all(sentence.strip() for sentence in found)


def numbered(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Render, and return each run of tokens of one sentence number with its text."""
    rendered = render_prompt(tokenizer, messages, number_sentences=True)
    assert rendered.sentences is not None
    assert len(rendered.sentences) == len(rendered.ids)
    runs = groupby(zip(rendered.sentences, rendered.ids, strict=True), key=lambda pair: pair[0])
    return [(number, tokenizer.decode([token for _, token in run])) for number, run in runs]


def test_sentences_are_numbered_over_the_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    """Each sentence of what was said has a number of its own; the template's tokens have none."""
    messages = [
        {"role": "user", "content": "We use tabs. We test with pytest."},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": "Good"},
    ]
    assert numbered(tokenizer, messages) == [
        (-1, "<|im_start|>user\n"),
        (0, "We use tabs."),
        (1, " We test with pytest."),
        (-1, "<|im_end|>\n<|im_start|>assistant\n"),
        (2, "Noted."),
        (-1, "<|im_end|>\n<|im_start|>user\n"),
        (3, "Good"),
        (-1, "<|im_end|>\n<|im_start|>assistant\n"),
    ]


def test_what_is_not_said_as_it_is_printed_is_one_sentence(
    make_tokenizer: Callable[..., PreTrainedTokenizerFast], templates: dict[str, str]
) -> None:
    """A call, and reasoning that the template leaves out, are numbered as whole messages."""
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo. Or so"}}}
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "<think>\nA. B.\n</think>\n\nHi. You."},
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "I look. Wait.", "tool_calls": [call]},
    ]
    found = numbered(make_tokenizer(templates["qwen3"]), messages)
    assert [text for number, text in found if number == 1] == ["<|im_start|>assistant\nHi. You.<|im_end|>\n"]
    (whole,) = [text for number, text in found if number == 3]
    assert whole.startswith("<|im_start|>assistant\n")
    assert "Oslo. Or so" in whole


@given(texts=st.lists(st.text(alphabet="ab. \n<|im_end|>", max_size=20), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_no_sentence_reaches_over_two_messages(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> None:
    """Every message has a sentence, numbers only grow, and no two messages share one."""
    messages = [{"role": "user", "content": text} for text in texts]
    rendered = render_prompt(tokenizer, messages, number_sentences=True)
    assert render_prompt(tokenizer, messages).sentences is None
    inside = [{n for n in rendered.sentences[begin:end] if n >= 0} for begin, end in rendered.spans]
    assert all(inside)
    assert [n for numbers in inside for n in sorted(numbers)] == list(range(sum(map(len, inside))))
