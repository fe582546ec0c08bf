"""Run long threads, with and without memory, and record seconds per turn and bytes on disk."""

import copy
import itertools
import random
import statistics
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from backbone import Backbone, Engine, render_prompt
from deltamem_agents.chat_models import ChatDeltaMem
from deltamem_agents.checkpoint import open_checkpointer
from deltamem_agents.messages import to_template_message
from deltamem_agents.middleware import DeltaMemMiddleware

__all__ = [
    "MAX_REPLY_TOKENS",
    "TurnTime",
    "answer_without_memory",
    "compare_turns",
    "file_bytes_without_memory",
    "read_without_memory",
    "requests",
    "run_thread",
]

MAX_REPLY_TOKENS = 16
_WORDS = ("cache", "router", "loader", "session", "search", "mailer", "worker", "report", "parser", "queue")


@dataclass(frozen=True)
class ThreadRun:
    """Hold what one long thread left: its messages, seconds of each turn, bytes of its database file."""

    messages: tuple[BaseMessage, ...]
    seconds: tuple[float, ...]
    file_bytes: int


@dataclass(frozen=True)
class TurnTime:
    """Hold the seconds of one turn of a thread, with memory and with the full history in the prompt.

    Warm turns find the keys and values of what earlier turns have read; the others read everything.
    """

    turn: int
    memory_seconds: float
    full_seconds: float
    memory_warm_seconds: float
    full_warm_seconds: float

    @property
    def ratio(self) -> float:
        """Return how many times as long the full history takes where everything is read."""
        return self.full_seconds / self.memory_seconds


def run_thread(turns: int, database: Path, *, trim_history: bool, warm: bool = False) -> ThreadRun:
    """Hold one thread of `turns` turns with memory; with `trim_history` absorbed messages leave the checkpoint.

    warm: with the prefix cache of a model that is made without options. Else nothing that was read is kept for the next
    turn, and what is compared is the memory alone.
    """
    cache = {} if warm else {"prefix_cache_bytes": 0}
    model = ChatDeltaMem(max_tokens=MAX_REPLY_TOKENS, **cache)
    return _run(model, [DeltaMemMiddleware(trim_history=trim_history)], turns, database)


def file_bytes_without_memory(run: ThreadRun, database: Path) -> int:
    """Return the bytes of the same thread's database for an agent without memory that keeps every message.

    The replies are those of `run`, given back by a scripted model: only what is stored is compared.
    """
    replies = [message.model_copy(update={"id": None}) for message in run.messages if isinstance(message, AIMessage)]
    return _run(GenericFakeChatModel(messages=iter(replies)), [], len(replies), database).file_bytes


def compare_turns(run: ThreadRun, warm: ThreadRun, turns: Sequence[int], *, repeats: int = 3) -> list[TurnTime]:
    """Compare turns of `run`, and of the same thread run warm, with the same backbone, frozen, given the whole history.

    `run` must have kept its messages. Turns are counted from 1. With memory: the mean of the turn and up to two
    neighbours on each side, because only some turns absorb. Full history: the median of `repeats`, of the decoder
    alone, which runs no memory and need not stop where a cache could go on.
    """
    engine = ChatDeltaMem().engine
    times = []
    for turn in turns:
        memory, memory_warm = (statistics.mean(part.seconds[max(0, turn - 3) : turn + 2]) for part in (run, warm))
        messages = run.messages[: 2 * turn - 1]
        full = statistics.median(_seconds_without_memory(engine, messages) for _ in range(repeats))
        (past,) = engine.submit(partial(read_without_memory, engine.backbone, messages))
        full_warm = statistics.median(_seconds_without_memory(engine, messages, past) for _ in range(repeats))
        times.append(TurnTime(turn, memory, full, memory_warm, full_warm))
    return times


def _seconds_without_memory(engine: Engine, messages: Sequence[BaseMessage], past: Any = None) -> float:
    past = copy.deepcopy(past)  # answering adds to it
    begin = time.perf_counter()
    for _ in engine.submit(lambda: answer_without_memory(engine.backbone, messages, past=past)):
        pass
    return time.perf_counter() - begin


@torch.no_grad()
def read_without_memory(backbone: Backbone, messages: Sequence[BaseMessage]) -> Generator[Any, None, None]:
    """Yield the frozen decoder's keys and values of what the prompt with all but the newest message has in common."""
    prompt, before = _prompt(backbone, messages), _prompt(backbone, messages[:-1])
    known = [ids[0] for ids in itertools.takewhile(lambda ids: ids[0] == ids[1], zip(prompt, before, strict=False))]
    decoder = backbone.model.backbone  # called by itself it runs no memory
    yield decoder(input_ids=torch.tensor([known], device=decoder.device), logits_to_keep=1).past_key_values


@torch.no_grad()
def answer_without_memory(
    backbone: Backbone, messages: Sequence[BaseMessage], *, piece: int = 512, past: Any = None
) -> Generator[int | None, None, None]:
    """Yield the token ids of the frozen decoder's greedy reply to messages that all stand in its prompt.

    The prompt is read in pieces of as many tokens as prefill takes, one piece a step; None is yielded between them.
    past: what `read_without_memory` gave; it is changed.
    """
    tokenizer: Any = backbone.tokenizer
    decoder = backbone.model.backbone
    known = 0 if past is None else past.get_seq_length()
    parts = torch.split(torch.tensor([_prompt(backbone, messages)[known:]], device=decoder.device), piece, dim=1)
    out = decoder(input_ids=parts[0], past_key_values=past, logits_to_keep=1)
    for part in parts[1:]:
        yield None
        out = decoder(input_ids=part, past_key_values=out.past_key_values, logits_to_keep=1)
    for left in reversed(range(MAX_REPLY_TOKENS)):
        token = out.logits[:, -1].argmax(dim=-1, keepdim=True)
        if token.item() == tokenizer.eos_token_id:
            return
        yield int(token)
        if left:
            out = decoder(input_ids=token, past_key_values=out.past_key_values)


def _prompt(backbone: Backbone, messages: Sequence[BaseMessage]) -> Sequence[int]:
    return render_prompt(backbone.tokenizer, [to_template_message(message) for message in messages]).ids


def _run(model: BaseChatModel, middleware: list[Any], turns: int, database: Path) -> ThreadRun:
    config: Any = {"configurable": {"thread_id": "bench"}}
    messages: list[BaseMessage] = []
    seconds = []
    with open_checkpointer(f"sqlite:///{database}") as saver:
        agent = create_agent(model, middleware=middleware, checkpointer=saver)
        for text in itertools.islice(requests(), turns):
            begin = time.perf_counter()
            result = agent.invoke({"messages": [HumanMessage(text)]}, config)
            seconds.append(time.perf_counter() - begin)
            messages.extend(result["messages"][-2:])
    return ThreadRun(tuple(messages), tuple(seconds), database.stat().st_size)


def requests() -> Iterator[str]:
    """Yield short requests, the same ones in every run; two hundred of them still fit the bundled model's positions."""
    rng = random.Random(0)  # noqa: S311 - a workload, not a secret
    while True:
        yield f"Check this:\n{rng.choice(_WORDS)}: job {rng.randrange(1000)} finished"
