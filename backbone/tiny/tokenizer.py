"""Train the bundled tokenizer and turn episodes into token rows."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from backbone.tiny.domain import ATTRIBUTES
from backbone.tiny.episodes import Episode, EpisodeOptions, Turn, generate_episode
from backbone.tiny.noise import Message

__all__ = ["CHAT_TEMPLATE", "encode_turns", "system_text", "train_tokenizer"]

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = tuple(
    mark
    for name in ("tool_call", "tool_response", "tools", "think", "recalled")
    for mark in (f"<{name}>", f"</{name}>")
)
# A word keeps its leading space and its inner dots, dashes and slashes, so that most values are one token a word.
WORDS = r" ?[\p{L}\p{N}_]+(?:[./=\-][\p{L}\p{N}_]+)*| ?[^\s\p{L}\p{N}_]+|\n|[^\S\n]+"
CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text()


def _corpus(seed: int, episodes: int) -> Iterator[str]:
    rng = random.Random(seed)
    for item in ATTRIBUTES:
        for value in item.values:
            yield from (f"The {item.names[0]} is {value}.", f'"{value}"') * 150
    yield from ("system\n", "user\n", "assistant\n", '{"name": "') * 1000
    for _ in range(episodes):
        options = EpisodeOptions(
            facts=rng.randrange(1, 9), noise=rng.randrange(6), queries=4, tools_share=0.5, recalled_share=0.15
        )
        episode = generate_episode(rng, options, generic_share=0.2)
        yield system_text(episode)
        for turn in (*episode.history, *(t for query in episode.queries for t in query.turns)):
            yield _body(turn.message)
        yield from (query.recalled["content"] for query in episode.queries if query.recalled)


def train_tokenizer(*, seed: int, vocab_size: int, episodes: int = 6000) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer fitted to the domain, with the chat template set."""
    core = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(MARKS),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_corpus(seed, episodes), trainer)
    core.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS])
    ends = {"eos_token": SPECIAL[2], "pad_token": SPECIAL[0]}
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core, clean_up_tokenization_spaces=False, **ends
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def system_text(episode: Episode) -> str:
    """Return the content of the first system message with the tools, as the chat template renders it."""
    parts = [episode.system] if episode.system else []
    if episode.tools:
        schemas = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in episode.tools)
        parts.append(f"# Tools\n<tools>\n{schemas}\n</tools>")
    return "\n\n".join(parts)


def _body(message: Message) -> str:
    """Return the text between the role line and the end mark, as the chat template renders it."""
    if message["role"] == "tool":
        return f"<tool_response>\n{message['content']}\n</tool_response>"
    calls = [
        '<tool_call>\n{{"name": "{}", "arguments": {}}}\n</tool_call>'.format(
            call["function"]["name"], json.dumps(call["function"]["arguments"], ensure_ascii=False)
        )
        for call in message.get("tool_calls", ())
    ]
    return "\n".join([*([message["content"]] if message["content"] else []), *calls])


def encode_turns(tokenizer: PreTrainedTokenizerFast, turns: Sequence[Turn]) -> list[tuple[list[int], int]]:
    """Return each turn's token ids and where the part that the model says begins.

    Equals the chat template's tokens (a test holds the two together) at a fraction of its time.
    """
    texts, heads = [], []
    for turn in turns:
        role = "user" if turn.message["role"] == "tool" else turn.message["role"]
        texts.append(f"<|im_start|>{role}\n{_body(turn.message)}<|im_end|>\n")
        heads.append(3)
    encoded = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    return [(entry.ids, head) for entry, head in zip(encoded, heads, strict=True)]
