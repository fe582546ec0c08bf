"""Measure what a model remembers after the text has left its prompt, next to the controls."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from rich.console import Console
from rich.progress import Progress

from backbone import ConfigError, MemoryState, RecallProbe, RecallQuestion, recall_probe
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.chat_models import ChatDeltaMem
from deltamem_agents.memory_cell import use_memory
from deltamem_agents.recalling import ArchiveRecall, in_window
from deltamem_agents.working_memory import WorkingMemory

__all__ = ["RecallOptions", "is_right", "run_recall"]

FIGURES = ("exact_match", "zeroed", "shuffled", "full_context", "never_told")
ARCHIVE_FIGURES = ("archive_only", "hybrid", "hybrid_never_told")
QUESTIONS = 4
NEVER_TOLD = 2
WINDOW_TOKENS = 512
KEEP_TOKENS = 128
SMALLEST_WINDOW = 32  # the longest question and the opening of its reply
FULL_CONTEXT_TOKENS = 8000
REPLY_TOKENS, OTHER_REPLY_TOKENS = 24, 64  # of the bundled model, and of others, which say more


@dataclass(frozen=True)
class RecallOptions:
    """Set what is measured: facts a thread, unrelated tokens behind them, and how many threads are averaged.

    updates: every fact is changed later, and the newest value is asked for. seed draws the conversations. archive: ask
    with an archive of the thread as well; adds the figures "archive only" and "hybrid". model, adapter,
    revision, device: as ChatDeltaMem takes them.
    """

    facts: int = 4
    distance: int = 500
    updates: bool = False
    threads: int = 24
    seed: int = 0
    archive: bool = False
    model: str | None = None
    adapter: str | None = None
    revision: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.threads < 2:
            raise ConfigError(f"threads must be at least 2, to ask one with another's memory; got {self.threads}")


@dataclass(frozen=True)
class _Thread:
    """Hold a conversation and the memory it left."""

    probe: RecallProbe
    messages: tuple[BaseMessage, ...]
    memory: WorkingMemory


@dataclass
class _Tally:
    """Count right answers under one condition."""

    right: int = 0
    asked: int = 0

    @property
    def share(self) -> float:
        """Return the share of right answers."""
        return self.right / max(1, self.asked)


def run_recall(options: RecallOptions) -> dict[str, float | int]:
    """Return exact match with memory and under the controls.

    Every thread is a conversation that training never produced: its facts, unrelated text, then questions, each asked
    apart. The whole history is handed to `ChatDeltaMem`, which absorbs it as any agent's; only questions are answered
    live. Keys: exact_match, zeroed, shuffled, full_context, chance, never_told, n, prompt_contains_fact; with an
    archive also archive_only, hybrid (working memory and archive) and hybrid_never_told.
    What counts as right: is_right. Raises ConfigError for facts or a distance that cannot be, AdapterError for an
    adapter that is not the model's.
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_interactive) as progress:
        return _measure(options, progress)


def _measure(options: RecallOptions, progress: Progress) -> dict[str, float | int]:
    window = min(WINDOW_TOKENS, max(SMALLEST_WINDOW, options.distance))
    keep = min(KEEP_TOKENS, max(1, options.distance // 3))
    model = _chat_model(options, window, keep)
    full = _chat_model(options, FULL_CONTEXT_TOKENS)
    count_tokens = _token_counter(model)
    numbers = range(options.threads)
    threads = [_read(model, options, number, count_tokens) for number in progress.track(numbers, description="reading")]
    tallies = {name: _Tally() for name in FIGURES + (ARCHIVE_FIGURES if options.archive else ())}
    leaks, chances = 0, []
    if options.archive:
        _ask_with_archives(model, threads, tallies, progress)
    for number in progress.track(numbers, description="asking"):
        thread, other = threads[number], threads[(number + 1) % options.threads]
        for question in thread.probe.questions:
            name = "exact_match" if question.told else "never_told"
            leaks += _ask(model, thread, question, thread.memory, tallies[name])
            if question.told:
                _ask(model, thread, question, _zeroed(thread.memory), tallies["zeroed"])
                _ask(model, thread, question, thread.memory.with_state(other.memory.state), tallies["shuffled"])
                _ask(full, thread, question, None, tallies["full_context"])
                chances.append(1 / question.choices)
    figures: dict[str, float | int] = {name: tally.share for name, tally in tallies.items()}
    return {
        **figures,
        "chance": sum(chances) / len(chances),
        "n": tallies["exact_match"].asked,
        "prompt_contains_fact": leaks,
    }


def is_right(reply: str, question: RecallQuestion, *, exact: bool) -> bool:
    """Tell whether a reply answers a question; a question about what was never told wants no value.

    exact: word for word as the bundled model answers. Otherwise a reply names the value and no other of the attribute.
    """
    if exact:
        return reply.strip() == question.reply
    named = {value for value in question.values if re.search(rf"(?<!\w){re.escape(value)}(?!\w)", reply, re.IGNORECASE)}
    return named == ({question.value} if question.told else set())


def _chat_model(options: RecallOptions, window_tokens: int, keep_tokens: int | None = None) -> ChatDeltaMem:
    return ChatDeltaMem(
        model=options.model,
        adapter=options.adapter,
        revision=options.revision,
        device=options.device,
        window_tokens=window_tokens,
        keep_tokens=keep_tokens,
        max_tokens=REPLY_TOKENS if options.model is None else OTHER_REPLY_TOKENS,
    )


def _token_counter(model: ChatDeltaMem) -> Any:
    tokenizer = model.engine.backbone.tokenizer
    return lambda text: len(tokenizer(text, add_special_tokens=False).input_ids)


def _read(model: ChatDeltaMem, options: RecallOptions, number: int, count_tokens: Any) -> _Thread:
    """Let the model absorb one conversation."""
    probe = recall_probe(
        options.seed * 1000 + number,
        facts=options.facts,
        distance=options.distance,
        updates=options.updates,
        questions=QUESTIONS,
        never_told=NEVER_TOLD,
        count_tokens=count_tokens,
    )
    messages = tuple(_message(entry, f"m{at}") for at, entry in enumerate(probe.messages))
    with use_memory() as cell:
        model.invoke([*messages, HumanMessage(probe.questions[0].text, id="first")])
    if cell.out is None:
        raise ConfigError(
            f"{options.facts} facts and {options.distance} tokens fit in the window, so nothing left the prompt; "
            "ask for a larger distance"
        )
    return _Thread(probe, messages, WorkingMemory.from_bytes(cell.out))


def _message(entry: Any, identity: str) -> BaseMessage:
    kind = HumanMessage if entry["role"] == "user" else AIMessage
    return kind(entry["content"], id=identity)


def _ask(
    model: ChatDeltaMem, thread: _Thread, question: RecallQuestion, memory: WorkingMemory | None, tally: _Tally
) -> bool:
    """Ask one question apart from the others; return whether the prompt held a fact's text."""
    asked: Sequence[BaseMessage] = [*thread.messages, HumanMessage(question.text, id="question")]
    with use_memory(None if memory is None else memory.to_bytes()) as cell:
        reply = model.invoke(asked)
    tally.asked += 1
    tally.right += is_right(reply.text, question, exact=model.model is None)
    prompt = "" if cell.report is None else cell.report.prompt_text
    return any(text in prompt for text in thread.probe.fact_texts)


def _ask_with_archives(
    model: ChatDeltaMem, threads: Sequence[_Thread], tallies: dict[str, _Tally], progress: Progress
) -> None:
    """Ask each thread's questions with what its archive recalls; by meaning too if there are default embeddings."""
    with (
        tempfile.TemporaryDirectory() as folder,
        MemoryStore.from_url(f"sqlite:///{folder}/archive.sqlite", Path(folder) / "index") as store,
    ):
        for number, thread in enumerate(progress.track(threads, description="asking archives")):
            with ArchiveRecall(store, namespace=("thread", str(number))) as archive:
                _ask_with_archive(model, thread, archive, tallies)


def _ask_with_archive(model: ChatDeltaMem, thread: _Thread, archive: ArchiveRecall, tallies: dict[str, _Tally]) -> None:
    """Ask every question with what the archive recalls: without working memory, and with it."""
    archive.archive(thread.messages, "thread")
    archive.flush()
    window = in_window(thread.messages, thread.memory)
    for question in thread.probe.questions:
        asked = [*thread.messages, HumanMessage(question.text, id="question")]
        shown, _ = archive.with_recalled(asked, in_prompt=window, as_system=True, count_tokens=model.get_num_tokens)
        memories = {"hybrid" if question.told else "hybrid_never_told": thread.memory}
        if question.told:
            memories["archive_only"] = _zeroed(thread.memory)
        for name, memory in memories.items():
            with use_memory(memory.to_bytes()):
                reply = model.invoke(shown)
            tallies[name].asked += 1
            tallies[name].right += is_right(reply.text, question, exact=model.model is None)


def _zeroed(memory: WorkingMemory) -> WorkingMemory:
    layers = {name: layer * 0.0 for name, layer in memory.state.layers.items()}
    return memory.with_state(MemoryState(layers, memory.state.fingerprint))
