"""Run one turn on the inference thread: absorb what leaves the window, read the prompt, write the reply."""

import dataclasses
import json
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.messages import BaseMessage

from backbone import (
    Backbone,
    Constraint,
    Finished,
    InvalidToolCall,
    MemoryModel,
    PrefixCache,
    PromptError,
    ReasoningDelta,
    Sampling,
    TextDelta,
    TextStream,
    TokenPrompt,
    ToolCall,
    ToolCallParser,
    decode,
)
from deltamem_agents._measuring import MessageSignals, Meter
from deltamem_agents._prompt import TurnTokens, lay_out
from deltamem_agents._reading import TurnReader
from deltamem_agents.memory_cell import TurnReport
from deltamem_agents.working_memory import WorkingMemory

__all__ = ["ReplyEvent", "TurnEnd", "TurnEvent", "TurnRequest", "measure_turn", "plan_request", "run_turn"]

ReplyEvent = TextDelta | ReasoningDelta | ToolCall | InvalidToolCall
Reason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """Hold everything that a reply is a function of, besides the model.

    tools: OpenAI schemas that the prompt lists. constrain: makes this reply's constraint from the tokenizer; None
    leaves the model free. plain: the reply is text as it stands (JSON), not to be searched for calls or reasoning.
    absorb_only: the turn ends once the memory has absorbed what leaves the window.
    unwritten, decays: what policies decided about messages, by their digests: not to be written, and what the memory is
    scaled by before them.
    """

    messages: tuple[BaseMessage, ...]
    memory: bytes | str | None
    tools: tuple[Mapping[str, Any], ...]
    sampling: Sampling
    stop: tuple[str, ...]
    window_tokens: int
    keep_tokens: int
    constrain: Callable[[Any], Constraint] | None = None
    plain: bool = False
    template_options: Mapping[str, Any] = field(default_factory=dict)
    absorb_only: bool = False
    unwritten: frozenset[bytes] = frozenset()
    decays: Mapping[bytes, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """Close a complete reply. memory: the new working memory's bytes, None if it has not changed.

    cached_input_tokens: those of the input_tokens that the prefix cache held. cached_tokens, computed_tokens: of all
    that the turn read, absorbing included, what the cache held and what went through the model.
    """

    reason: Reason
    input_tokens: int
    cached_input_tokens: int
    cached_tokens: int
    computed_tokens: int
    output_tokens: int
    reasoning_tokens: int
    memory: bytes | None
    report: TurnReport


TurnEvent = ReplyEvent | TurnEnd


def run_turn(
    backbone: Backbone, request: TurnRequest, cache: PrefixCache | None = None
) -> Generator[TurnEvent | None, None, None]:
    """Yield the reply as it is written, then one TurnEnd; every step is one forward pass at most.

    cache: of this backbone's engine; it changes what a turn costs and nothing else.
    Raises PromptError, WindowOverflowError or StateError before anything is yielded.
    """
    model = backbone.model
    tokenizer: Any = backbone.tokenizer  # its annotations are wider than what its methods return
    before, tokens = plan_request(backbone, request)
    prompt = tokens.reply_prompt()
    sampling = _fit(model, prompt, request.sampling)
    constraint = request.constrain(tokenizer) if request.constrain is not None else None
    reader = TurnReader(model, cache)
    memory = yield from reader.absorb(tokens, before)
    # Before anything is said from it: a state that has run away raises here, and the thread keeps the one it had.
    after = memory.to_bytes() if memory is not before else None
    report = _report(tokenizer.decode(list(prompt.ids)), prompt, tokens, before, memory)
    if request.absorb_only:
        yield TurnEnd("stop", len(prompt.ids), 0, reader.cached, reader.computed, 0, 0, after, report)
        return
    prefilled = yield from reader.read(prompt, memory.state)
    writer = _ReplyWriter(request, tokenizer, thinking=report.prompt_text.rstrip().endswith("<think>"))
    ends = _end_ids(model, tokenizer)
    reply = decode(model, prefilled, sampling, eos_ids=ends, constraint=constraint, segment_id=len(request.messages))
    reason = yield from writer.write(reply)
    yield TurnEnd(
        reason,
        len(prompt.ids),
        prefilled.cached_tokens,
        reader.cached,
        reader.computed,
        writer.tokens,
        writer.reasoning_tokens,
        after,
        report,
    )


def plan_request(backbone: Backbone, request: TurnRequest) -> tuple[WorkingMemory, TurnTokens]:
    """Read the request's memory, and lay out what it has not absorbed."""
    empty = backbone.model.empty_memory()
    before = WorkingMemory(empty)
    if request.memory is not None:
        before = WorkingMemory.from_bytes(request.memory, like=empty)
    tokens = lay_out(
        backbone.tokenizer,
        request.messages,
        request.tools,
        before,
        window_tokens=request.window_tokens,
        keep_tokens=request.keep_tokens,
        by_sentence=backbone.model.config.granularity == "sentence",
        template_options=request.template_options,
        unwritten=request.unwritten,
        decays=request.decays,
    )
    return before, tokens


def measure_turn(
    backbone: Backbone, request: TurnRequest, cache: PrefixCache | None, wanted: Collection[bytes]
) -> Generator[Mapping[bytes, MessageSignals] | None, None, None]:
    """Yield once, at the end, what the memory makes of messages (named by digests) that a turn would write.

    They are read as the turn would read them, and what that leaves is dropped, but for the cache. Raises as run_turn.
    """
    before, tokens = plan_request(backbone, request)
    meter = Meter(tokens.owners(wanted), whole=backbone.model.config.writes_segments)
    reader = TurnReader(backbone.model, cache, meter)
    memory = yield from reader.absorb(tokens, before)
    yield from reader.read(tokens.reply_prompt(), memory.state, need_logits=False)
    yield meter.signals()


class _ReplyWriter:
    """Turn the tokens of one reply into events, and count them."""

    def __init__(self, request: TurnRequest, tokenizer: Any, *, thinking: bool) -> None:
        self.tokens = 0
        self.reasoning_tokens = 0
        self._called = False
        self._offers_tools = bool(request.tools)
        self._text = TextStream(tokenizer, request.stop)
        self._parser = None if request.plain else ToolCallParser(reasoning_open=thinking and request.constrain is None)

    def write(self, reply: Generator[int, None, Finished]) -> Generator[ReplyEvent | None, None, Reason]:
        """Yield events up to the reply's end or a stop string, and return why it ended."""
        reason: Reason = "stop"
        while not self._text.stopped:
            try:
                token = next(reply)
            except StopIteration as ended:
                reason = ended.value.reason
                break
            self.tokens += 1
            events = list(self._read(self._text.push(token)))
            self.reasoning_tokens += any(isinstance(event, ReasoningDelta) for event in events)
            yield from events or (None,)
        reply.close()
        yield from self._read(self._text.finish())
        if self._parser is not None:
            yield from self._checked(self._parser.finish())
        return "tool_calls" if self._called else reason

    def _read(self, text: str) -> Iterable[ReplyEvent]:
        if not text:
            return ()
        return (TextDelta(text),) if self._parser is None else self._checked(self._parser.feed(text))

    def _checked(self, events: Iterable[ReplyEvent]) -> Iterable[ReplyEvent]:
        """Note calls; where no tools were offered, what looks like a call is text."""
        for event in events:
            if isinstance(event, ToolCall) and self._offers_tools:
                self._called = True
                yield event
            elif isinstance(event, ToolCall):
                call = json.dumps({"name": event.name, "arguments": event.arguments}, ensure_ascii=False)
                yield TextDelta(f"<tool_call>\n{call}\n</tool_call>")
            elif isinstance(event, InvalidToolCall) and not self._offers_tools:
                yield TextDelta(f"<tool_call>{event.raw}</tool_call>")
            else:
                yield event


def _fit(model: MemoryModel, prompt: TokenPrompt, sampling: Sampling) -> Sampling:
    """Shorten the longest possible reply to what the model's positions leave, as hosted models do.

    Raises PromptError if they leave nothing.
    """
    limit = getattr(model.backbone.config.get_text_config(), "max_position_embeddings", None)
    if limit is None:
        return sampling
    room = limit - len(prompt.ids)
    if room < 1:
        raise PromptError(
            f"the prompt has {len(prompt.ids)} tokens and the model reads at most {limit}; shorten the system messages "
            "or tools, or lower window_tokens"
        )
    return dataclasses.replace(sampling, max_tokens=min(sampling.max_tokens, room))


def _end_ids(model: MemoryModel, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a reply, by the model's generation config and by the tokenizer."""
    named = getattr(model.backbone.generation_config, "eos_token_id", None)
    ids = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*ids, tokenizer.eos_token_id) if token is not None)


def _report(
    text: str, prompt: TokenPrompt, tokens: TurnTokens, before: WorkingMemory, after: WorkingMemory
) -> TurnReport:
    return TurnReport(
        prompt_text=text,
        prompt_tokens=len(prompt.ids),
        window_messages=len(tokens.plan.window),
        absorbed_messages=after.messages,
        absorbed_tokens=after.tokens,
        absorbed_now=after.messages - before.messages,
        tokens_now=after.tokens - before.tokens,
    )
