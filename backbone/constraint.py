"""Constrain decoding to a JSON schema or to tool calls, with llguidance."""

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from backbone.errors import ConfigError
from backbone.schema import bound_arguments, bound_schema

__all__ = ["GrammarConstraint", "json_schema_constraint", "tool_call_constraint"]

_MAX_CALLS = 8
# The spacing that chat templates print, so that a trained model stays on what it was trained on. Keywords that
# llguidance does not know are left to whoever validates the result, and named in the log.
_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": True}

_log = logging.getLogger(__name__)


class GrammarConstraint:
    """Let through only what a grammar allows; serves one decoding (a backbone.generation.Constraint)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, grammar: str) -> None:
        """Compile a Lark grammar in llguidance's dialect; raises ConfigError if grammar or tokenizer will not do."""
        self._tokenizer = _guidance_tokenizer(tokenizer)
        self._matcher = LLMatcher(self._tokenizer, grammar)
        self._check()
        for warning in self._matcher.get_grammar_warnings():
            _log.warning("constrained decoding leaves out part of a schema: %s", warning)

    @property
    def done(self) -> bool:
        """Whether nothing but the end of the turn may follow."""
        return self._matcher.is_stopped()

    def mask(self, logits: Tensor) -> Tensor:
        """Return logits [V] with -inf wherever a token may not come next; V may exceed the tokenizer's vocabulary."""
        allowed = torch.zeros(max(len(logits), self._tokenizer.vocab_size), dtype=torch.bool)
        # Where the text is settled, so is the way to cut it into tokens: the one the model was trained on.
        settled = self._matcher.compute_ff_tokens()
        if settled:
            allowed[settled[0]] = True
        else:
            bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
            allowed[: self._tokenizer.vocab_size] = torch.from_numpy(bits[: self._tokenizer.vocab_size]).bool()
        self._check()
        return logits.masked_fill(~allowed[: len(logits)].to(logits.device), -torch.inf)

    def accept(self, token_id: int) -> None:
        """Take note of the token that was chosen; raises ConfigError for one that may not come next."""
        self._matcher.consume_token(token_id)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConfigError(f"this schema cannot be enforced: {self._matcher.get_error().strip()}")


def json_schema_constraint(tokenizer: PreTrainedTokenizerBase, schema: Mapping[str, Any]) -> GrammarConstraint:
    """Force one JSON value that fits a JSON schema, spaced as `{"a": 1, "b": 2}`.

    Where the schema leaves lengths open they are bounded: strings to 200 characters, arrays to 8 items.
    Raises ConfigError if the schema cannot be enforced.
    """
    return GrammarConstraint(tokenizer, _lark("start: " + _json_rule(bound_schema(schema))))


def tool_call_constraint(
    tokenizer: PreTrainedTokenizerBase,
    tools: Sequence[Mapping[str, Any]],
    names: Sequence[str] | None = None,
    *,
    many: bool,
) -> GrammarConstraint:
    """Force one call in the Hermes form to one of the named tools (None: any), or with many one to eight of them.

    tools are OpenAI schemas. Lengths are bounded as in json_schema_constraint.
    Raises ConfigError for no tools, an unknown name, or parameters that cannot be enforced.
    """
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    chosen = list(functions) if names is None else list(names)
    unknown = [name for name in chosen if name not in functions]
    if not chosen or unknown:
        raise ConfigError(f"a tool call can be forced to one of {sorted(functions)}, got {unknown or chosen}")
    opening, closing = (_tag(tokenizer, tag) for tag in ("<tool_call>", "</tool_call>"))
    bodies = [_call_rule(name, functions[name].get("parameters")) for name in chosen]
    rules = [
        "start: call" + (f' ("\\n" call){{0,{_MAX_CALLS - 1}}}' if many else ""),
        f'call: {opening} "\\n" body "\\n" {closing}',
        "body: " + " | ".join(bodies),
    ]
    return GrammarConstraint(tokenizer, _lark("\n".join(rules)))


def _call_rule(name: str, parameters: Mapping[str, Any] | None) -> str:
    head = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '
    return f'{json.dumps(head, ensure_ascii=False)} {_json_rule(bound_arguments(parameters))} "}}"'


def _json_rule(schema: Any) -> str:
    styled = {"allOf": [schema], "x-guidance": _STYLE} if isinstance(schema, bool) else {**schema, "x-guidance": _STYLE}
    return f"%json {json.dumps(styled)}"


def _lark(rules: str) -> str:
    return LLMatcher.grammar_from_lark(rules)


def _tag(tokenizer: PreTrainedTokenizerBase, tag: str) -> str:
    """Return the grammar's word for a tag: the tokenizer's own token for it, or plain text if it has none."""
    number = tokenizer.added_tokens_encoder.get(tag)
    return json.dumps(tag) if number is None else f"<[{number}]>"


@functools.lru_cache(maxsize=4)
def _guidance_tokenizer(tokenizer: PreTrainedTokenizerBase) -> LLTokenizer:
    # Building it takes up to a second for a large vocabulary.
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.eos_token_id is None:
        raise ConfigError(
            f"constrained decoding needs a fast tokenizer with an end token, got {type(tokenizer).__name__} "
            f"with eos_token {tokenizer.eos_token!r}"
        )
    return from_tokenizer(tokenizer)
