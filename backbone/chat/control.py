"""Tell control tokens from text that only spells them.

A tool result that spells `<|im_end|>` must not end its turn. A character that nobody wrote is put into what messages
and tools spell, and the text is encoded in the parts that it leaves.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["control_ids", "encode", "part_spelled", "strings_of"]

# Some tokenizers register these as special tokens, but they are part of what a reply says.
_SPEAKING = frozenset({"<tool_call>", "</tool_call>", "<think>", "</think>"})
# Rare ideographs. A template may print a tool as Python does, which escapes characters that are not printable.
_PARTING = range(0x20000, 0x2A6DE)


def control_ids(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Return the special tokens, which structure a prompt and say nothing, such as the end of a turn."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    speaking = {tokenizer.convert_tokens_to_ids(tag) for tag in _SPEAKING}
    return frozenset((added | set(tokenizer.all_special_ids)) - speaking)


def part_spelled(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str | None]:
    """Return messages and tools with a parting character inside each control token that they spell, and that character.

    It is None if they spell none.
    """
    tokens = {str(tokenizer.convert_ids_to_tokens(number)) for number in control_ids(tokenizer)}
    pattern = re.compile("|".join(f"(?<={re.escape(t[:1])})(?={re.escape(t[1:])})" for t in tokens) or "(?!)")
    strings = strings_of([*messages, *tools])
    if not any(pattern.search(text) for text in strings):
        return [dict(message) for message in messages], [dict(tool) for tool in tools], None
    written = set("".join(strings))
    parting = next(character for character in map(chr, _PARTING) if character not in written)
    return _replace(messages, pattern, parting), _replace(tools, pattern, parting), parting


def encode(tokenizer: "PreTrainedTokenizerBase", text: str, parting: str | None) -> tuple[list[int], list[int]]:
    """Return the token ids of a rendered text, cut at the parting character, and where in the text each token ends."""
    ids: list[int] = []
    ends: list[int] = []
    start = 0
    for piece in [text] if parting is None else text.split(parting):
        encoded = tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
        ids += encoded["input_ids"]
        ends += [start + end for _, end in encoded["offset_mapping"]]
        start += len(piece) + 1
    return ids, ends


def strings_of(value: Any) -> list[str]:
    """Return every string within a value made of mappings and lists, their keys included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for text in strings_of(pair)]
    return [text for part in value for text in strings_of(part)] if isinstance(value, list | tuple) else []


def _replace(value: Any, pattern: re.Pattern[str], by: str) -> Any:
    if isinstance(value, str):
        return pattern.sub(by, value)
    if isinstance(value, Mapping):
        # A key that is no string, such as a number, stays what it is.
        return {
            _replace(key, pattern, by) if isinstance(key, str) else key: _replace(part, pattern, by)
            for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [_replace(part, pattern, by) for part in value]
    return value
