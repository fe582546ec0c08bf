import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from backbone.chat.text import TextStream
from backbone.errors import ConfigError


def stream(tokenizer: PreTrainedTokenizerFast, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    text = TextStream(tokenizer, stop)
    return [*(text.push(number) for number in ids), text.finish()], text.stopped


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="<\ufffd"), max_size=60))
def test_what_comes_out_is_what_went_in(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    """Any text, token by token, is that text, and no piece holds half a character."""
    found, stopped = stream(tokenizer, ids_of(tokenizer, text))
    assert "".join(found) == text
    assert not any("\ufffd" in piece for piece in found)
    assert not stopped


@given(ids=st.lists(st.integers(3, 321), max_size=80))
@settings(max_examples=200)
def test_any_tokens_give_the_text_of_them_all(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> None:
    """Even bytes that are no text come out as the tokenizer decodes the whole."""
    found, _ = stream(tokenizer, ids)
    assert "".join(found) == tokenizer.decode(ids, skip_special_tokens=False)


def test_a_character_of_several_tokens_comes_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    """The bytes of an emoji give nothing until the last of them."""
    found, _ = stream(tokenizer, ids_of(tokenizer, "a😀b"))
    assert found == ["a", "", "", "", "😀", "b", ""]


def test_a_character_cut_off_at_the_end_is_shown_as_such(tokenizer: PreTrainedTokenizerFast) -> None:
    """A reply that ends inside a character ends with the replacement character, at finish."""
    found, _ = stream(tokenizer, ids_of(tokenizer, "a😀")[:-1])
    assert found == ["a", "", "", "", "\ufffd"]


def test_endless_noise_is_let_go(tokenizer: PreTrainedTokenizerFast) -> None:
    """Tokens that never make a character do not pile up for ever."""
    noise = ids_of(tokenizer, "é")[0]
    text = TextStream(tokenizer)
    shown = [text.push(noise) for _ in range(600)]
    assert len("".join(shown)) >= 500


def test_special_tokens_are_silent_and_tags_are_not(tokenizer: PreTrainedTokenizerFast) -> None:
    """End of turn and padding give no text; the tags of calls and reasoning do."""
    ids = ids_of(tokenizer, "<|im_start|><think>a</think><tool_call>b</tool_call><|im_end|><|endoftext|>")
    found, _ = stream(tokenizer, ids)
    assert "".join(found) == "<think>a</think><tool_call>b</tool_call>"


def test_tags_speak_even_where_they_are_registered_as_special(make_tokenizer: object) -> None:
    """A tokenizer that counts the call tags among its special tokens does not lose them."""
    tokenizer: PreTrainedTokenizerFast = make_tokenizer()  # type: ignore[operator]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool_call>", "<tool_response>"]})
    found, _ = stream(tokenizer, ids_of(tokenizer, "<tool_call>x<tool_response>"))
    assert "".join(found) == "<tool_call>x"


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one two three", ("two",), "one "),
        ("one two three", ("four",), "one two three"),
        ("two", ("two",), ""),
        ("a\nUser: b", ("\nUser:", "\nTool:"), "a"),
        ("abcabd", ("abd",), "abc"),
        ("xabc", ("bc", "abcd"), "xa"),
        ("xabcd", ("bcd", "abcd"), "x"),
        ("aab", ("ab",), "a"),
        ("ends with tw", ("two",), "ends with tw"),
    ],
)
def test_text_ends_before_the_first_stop_string_that_is_completed(
    text: str, stop: tuple[str, ...], expected: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Nothing of a stop string is shown, and what only looked like one is."""
    found, stopped = stream(tokenizer, ids_of(tokenizer, text), stop)
    assert "".join(found) == expected
    assert stopped == (expected != text)


@given(text=st.text("ab", max_size=30), stop=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_no_stop_string_is_ever_shown(tokenizer: PreTrainedTokenizerFast, text: str, stop: list[str]) -> None:
    """The text shown is the text up to the stop string that is completed first."""
    found, stopped = stream(tokenizer, ids_of(tokenizer, text), tuple(stop))
    ends = sorted(
        (end, end - len(word)) for word in stop for end in range(len(word), len(text) + 1) if text[:end].endswith(word)
    )
    assert stopped == bool(ends)
    assert "".join(found) == (text[: ends[0][1]] if ends else text)


def test_after_a_stop_nothing_more_comes(tokenizer: PreTrainedTokenizerFast) -> None:
    """Tokens pushed after the stop string are ignored."""
    text = TextStream(tokenizer, ["b"])
    shown = [text.push(number) for number in ids_of(tokenizer, "abc")]
    assert "".join(shown) == "a"
    assert text.push(ids_of(tokenizer, "d")[0]) == ""
    assert text.finish() == ""


@pytest.mark.parametrize("stop", ["word", ["ok", ""]])
def test_a_bare_string_and_an_empty_one_are_refused(stop: list[str], tokenizer: PreTrainedTokenizerFast) -> None:
    """Both would stop at once, or at every letter, which nobody means."""
    with pytest.raises(ConfigError, match="stop must be a list of strings"):
        TextStream(tokenizer, stop)
