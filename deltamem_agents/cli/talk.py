"""Hold a conversation with an agent that has tools: what it calls, what it answers, and what it needs leave for."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphRecursionError
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from backbone import ConfigError, DeltaMemError
from deltamem_agents.archive.records import Namespace
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.chat_models import ChatDeltaMem
from deltamem_agents.checkpoint import open_checkpointer
from deltamem_agents.cli.events import Show, events, print_event, print_json
from deltamem_agents.cli.progress import error_line, working
from deltamem_agents.cli.terminal import typed
from deltamem_agents.hybrid import HybridMemory
from deltamem_agents.policy import default_policy
from deltamem_agents.settings import Settings

__all__ = ["Graph", "MakeGraph", "own_files", "talk", "thread_of"]

Graph = CompiledStateGraph[Any, Any, Any, Any]
MakeGraph = Callable[[HybridMemory, BaseCheckpointSaver[Any]], Graph]


def thread_of(kind: str, path: Path) -> str:
    """Name the thread of a file or folder by its name, and by a digest of where it lies: namesakes stay apart."""
    path = path.resolve()
    return f"{kind}-{path.name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


def own_files(settings: Settings) -> list[Path]:
    """Return the files and the folder in which `talk` keeps threads, archive and index, for tools to keep out of."""
    threads, archive, index = settings.db, settings.archive_db.partition("?")[0], settings.archive_index or "://"
    kept = [url.removeprefix("sqlite:///") for url in (threads, archive) if url.startswith("sqlite:///")]
    return [Path(path) for path in (*kept, *([] if "://" in index else [index]))]


def talk(
    make: MakeGraph,
    model: ChatDeltaMem,
    settings: Settings,
    *,
    about: str,
    namespace: Namespace,
    thread: str,
    script: Path | None,
    as_json: bool = False,
) -> None:
    """Talk to the agent that `make` returns, until the input or the script ends.

    settings: where thread and archive are kept; what is said comes under `namespace`, and a recalled block may take a
    quarter of the window. about: what the agent works on, said first. script: a file that is typed instead of a person,
    a line at a time; empty lines and those that begin with # are skipped. as_json: print an object a line for whatever
    happens, with its kind.
    """
    show = print_json if as_json else print_event
    lines = typed() if script is None else _scripted(script, show)
    key = None if settings.aes_key is None else settings.aes_key.get_secret_value()
    budget = max(1, model.window[0] // 4)
    # Runner.run turns Ctrl-C into the cancellation of the turn, and then raises here.
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            store = MemoryStore.from_url(settings.archive_db, settings.archive_index, settings.archive_embeddings)
            with working("opening the archive"):
                runner.run(stack.enter_async_context(store))
            memory = stack.enter_context(
                HybridMemory(store, default_policy(), namespace=namespace, budget_tokens=budget)
            )
            with working("opening the threads"):
                saver = runner.run(stack.enter_async_context(open_checkpointer(settings.db, aes_key=key)))
            show({"kind": "note", "text": about})
            _converse(_Talk(make(memory, saver), thread, lines, show, ends=script is not None), runner)
        finally:
            with working("closing the archive"):
                runner.run(stack.aclose())


def _scripted(script: Path, show: Show) -> Iterator[str]:
    try:
        text = script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--script takes a text file, one line a message; {script} cannot be read: {error}"
        ) from error
    kept = (line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return (_echoed(line, show) for line in kept)


def _echoed(line: str, show: Show) -> str:
    show({"kind": "said", "text": line})
    return line


class _Talk:
    """One thread of an agent, the lines that are typed to it, and where it shows what happens."""

    def __init__(self, graph: Graph, thread: str, lines: Iterator[str], show: Show, *, ends: bool) -> None:
        """Take also whether Ctrl-C ends the talk, as it does a script, or only the turn, as a person means it."""
        self.graph = graph
        self.lines = lines
        self.show = show
        self.thread = thread
        self.ends = ends
        self.config: Any = {"configurable": {"thread_id": thread}}
        self._seen: set[str | None] = set()

    async def pending(self) -> list[Any]:
        """Return what an earlier process was waiting for when it ended."""
        return [one.value for one in (await self.graph.aget_state(self.config)).interrupts]

    async def step(self, payload: Any) -> Any:
        """Run the graph until it ends or waits, showing what happens; return what it waits for, or None."""
        waiting = None
        notes: list[str] = []
        events: Any = self.graph.astream(payload, self.config, stream_mode=["updates", "custom"])
        async for mode, chunk in events:
            if mode == "custom":
                notes.append(str(chunk))
                continue
            for node, update in chunk.items():
                if node == "__interrupt__":
                    waiting = update[0].value
                else:
                    for part in update if isinstance(update, list) else [update]:
                        self._show_new((part or {}).get("messages", ()))
        for text in notes:
            self.show({"kind": "note", "text": text})
        return waiting

    def _show_new(self, messages: Any) -> None:
        """Show the messages of an update that were not shown before: middleware gives some of them again."""
        for message in messages if isinstance(messages, list) else [messages]:
            if isinstance(message, BaseMessage) and (message.id is None or message.id not in self._seen):
                self._seen.add(message.id)
                for event in events(message):
                    self.show(event)


def _converse(chat: _Talk, runner: asyncio.Runner) -> None:
    chat.show({"kind": "note", "text": f"[thread {chat.thread}]"})
    for request in runner.run(chat.pending()):
        _turn(chat, runner, _answer(chat, request))
    for line in chat.lines:
        if line:
            _turn(chat, runner, {"messages": [HumanMessage(line)]})


def _turn(chat: _Talk, runner: asyncio.Runner, payload: Any) -> None:
    """Run a turn to its end; a payload of None is none, because the input ended before an answer."""
    try:
        while payload is not None:
            request = runner.run(chat.step(payload))
            payload = None if request is None else _answer(chat, request)
    except KeyboardInterrupt:
        chat.show({"kind": "note", "text": "\n[stopped]"})
        if chat.ends:
            raise
    except (DeltaMemError, GraphRecursionError) as error:
        chat.show({"kind": "error", "text": error_line(error)})


def _answer(chat: _Talk, request: Mapping[str, Any]) -> Command[Any] | None:
    """Ask about each call that waits for leave; yes and y grant it, and no answer at all, None, lets it wait on."""
    decisions = []
    for action in request["action_requests"]:
        chat.show({"kind": "question", "call": action["name"], "text": action["description"]})
        if (said := next(chat.lines, None)) is None:
            chat.show({"kind": "note", "text": "[not answered; it is asked again when the thread goes on]"})
            return None
        approved = said.lower() in {"y", "yes"}
        decisions.append({"type": "approve"} if approved else {"type": "reject", "message": "declined by the user"})
    return Command(resume={"decisions": decisions})
