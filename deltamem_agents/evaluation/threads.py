"""Run long threads, with and without memory, and record seconds per turn and bytes on disk."""

import itertools
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from deltamem_agents.chat_models import ChatDeltaMem
from deltamem_agents.checkpoint import open_checkpointer
from deltamem_agents.middleware import DeltaMemMiddleware

__all__ = ["MAX_REPLY_TOKENS", "TurnTime", "compare_turns", "file_bytes_without_memory", "requests", "run_thread"]

MAX_REPLY_TOKENS = 16
_EVERYTHING = 1_000_000
_WORDS = ("cache", "router", "loader", "session", "search", "mailer", "worker", "report", "parser", "queue")


@dataclass(frozen=True)
class ThreadRun:
    """Hold what one long thread left: its messages, seconds of each turn, bytes of its database file."""

    messages: tuple[BaseMessage, ...]
    seconds: tuple[float, ...]
    file_bytes: int


@dataclass(frozen=True)
class TurnTime:
    """Hold the seconds of one turn of a thread, with memory and with the full history in the prompt."""

    turn: int
    memory_seconds: float
    full_seconds: float

    @property
    def ratio(self) -> float:
        """Return how many times as long the full history takes."""
        return self.full_seconds / self.memory_seconds


def run_thread(turns: int, database: Path, *, trim_history: bool) -> ThreadRun:
    """Hold one thread of `turns` turns with memory; with `trim_history` absorbed messages leave the checkpoint.

    Nothing is cached from turn to turn, and nothing is where the full history is read: memory alone is compared.
    """
    middleware = [DeltaMemMiddleware(trim_history=trim_history)]
    return _run(ChatDeltaMem(max_tokens=MAX_REPLY_TOKENS, prefix_cache_bytes=0), middleware, turns, database)


def file_bytes_without_memory(run: ThreadRun, database: Path) -> int:
    """Return the bytes of the same thread's database for an agent without memory that keeps every message.

    The replies are those of `run`, given back by a scripted model: only what is stored is compared.
    """
    replies = [message.model_copy(update={"id": None}) for message in run.messages if isinstance(message, AIMessage)]
    return _run(GenericFakeChatModel(messages=iter(replies)), [], len(replies), database).file_bytes


def compare_turns(run: ThreadRun, turns: Sequence[int], *, repeats: int = 3) -> list[TurnTime]:
    """Compare turns of `run` with the same model given the whole history up to that turn.

    `run` must have kept its messages. Turns are counted from 1. With memory: the mean of the turn and up to two
    neighbours on each side, because only some turns absorb. Full history: the median of `repeats`.
    """
    model = ChatDeltaMem(
        max_tokens=MAX_REPLY_TOKENS, window_tokens=_EVERYTHING, keep_tokens=_EVERYTHING - 1, prefix_cache_bytes=0
    )
    times = []
    for turn in turns:
        around = run.seconds[max(0, turn - 3) : turn + 2]
        times.append(TurnTime(turn, statistics.mean(around), _full_history_seconds(model, run, turn, repeats)))
    return times


def _full_history_seconds(model: ChatDeltaMem, run: ThreadRun, turn: int, repeats: int) -> float:
    prompt = list(run.messages[: 2 * turn - 1])
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        model.invoke(prompt)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


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
