"""Hold a conversation with an agent that has tools: what it calls, what it answers, and what it needs leave for."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import typer
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphRecursionError
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from backbone import ConfigError, DeltaMemError
from deltamem_agents.archive.records import Namespace
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.chat_models import ChatDeltaMem
from deltamem_agents.checkpoint import open_checkpointer
from deltamem_agents.cli.progress import error_line
from deltamem_agents.hybrid import HybridMemory
from deltamem_agents.policy import default_policy
from deltamem_agents.settings import Settings

__all__ = ["Graph", "MakeGraph", "open_model", "talk"]

Graph = CompiledStateGraph[Any, Any, Any, Any]
MakeGraph = Callable[[HybridMemory, BaseCheckpointSaver[Any]], Graph]

_BUNDLED_REPLY_TOKENS = 64
_BUNDLED_RECALL_TOKENS = 128  # a quarter of its window


def open_model(model: str | None, adapter: str | None) -> ChatDeltaMem:
    """Return the chat model that options and settings name, loaded; raises DeltaMemError if it cannot be."""
    settings = Settings()
    limits = settings.model_dump(include={"window_tokens", "keep_tokens", "max_tokens"}, exclude_none=True)
    name = model or settings.model
    if name is None:
        limits.setdefault("max_tokens", _BUNDLED_REPLY_TOKENS)
        disable_progress_bar()  # type: ignore[no-untyped-call] # transformers types no logging
    chat_model = ChatDeltaMem(model=name, adapter=adapter or settings.adapter, **limits)
    with Console(stderr=True).status("loading the model"):
        _ = chat_model.engine
    return chat_model


def talk(
    make: MakeGraph, model: ChatDeltaMem, *, namespace: Namespace, thread: str, db: str | None, script: Path | None
) -> None:
    """Talk to the agent that `make` returns, until the input or the script ends.

    The thread is kept in `db`, what is said in the archive of the settings, under `namespace`. script: a file that is
    typed instead of a person, a line at a time; empty lines and those that begin with # are skipped.
    """
    lines = _typed() if script is None else _scripted(script)
    settings = Settings()
    key = None if settings.aes_key is None else settings.aes_key.get_secret_value()
    budget = _BUNDLED_RECALL_TOKENS if model.model is None else 4 * _BUNDLED_RECALL_TOKENS
    # Runner.run turns Ctrl-C into the cancellation of the turn, and then raises here.
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            store = MemoryStore.from_url(settings.archive_db, settings.archive_index, settings.archive_embeddings)
            runner.run(stack.enter_async_context(store))
            memory = stack.enter_context(
                HybridMemory(store, default_policy(), namespace=namespace, budget_tokens=budget)
            )
            saver = runner.run(stack.enter_async_context(open_checkpointer(db or settings.db, aes_key=key)))
            _converse(_Talk(make(memory, saver), thread, lines), runner)
        finally:
            runner.run(stack.aclose())


def _typed() -> Iterator[str]:
    """Yield what a person types, or what comes through a pipe."""
    while True:
        try:
            yield input("you> ").strip()
        except KeyboardInterrupt:
            _note("\nCtrl-C stops a reply; Ctrl-D ends the program.")
        except EOFError:
            typer.echo()
            return


def _scripted(script: Path) -> Iterator[str]:
    try:
        text = script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--script takes a text file, one line a message; {script} cannot be read: {error}"
        ) from error
    kept = (line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return (_echoed(line) for line in kept)


def _echoed(line: str) -> str:
    typer.echo(f"you> {line}")
    return line


class _Talk:
    """One thread of an agent, and the lines that are typed to it."""

    def __init__(self, graph: Graph, thread: str, lines: Iterator[str]) -> None:
        self.graph = graph
        self.lines = lines
        self.thread = thread
        self.config: Any = {"configurable": {"thread_id": thread}}
        self._seen: set[str | None] = set()

    async def pending(self) -> list[Any]:
        """Return what an earlier process was waiting for when it ended."""
        return [one.value for one in (await self.graph.aget_state(self.config)).interrupts]

    async def step(self, payload: Any) -> Any:
        """Run the graph until it ends or waits, printing what happens; return what it waits for, or None."""
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
                        _show_new((part or {}).get("messages", ()), self._seen)
        for note in notes:
            _note(note)
        return waiting


def _converse(chat: _Talk, runner: asyncio.Runner) -> None:
    _note(f"[thread {chat.thread}]")
    for request in runner.run(chat.pending()):
        _turn(chat, runner, _answer(chat, request))
    for line in chat.lines:
        if line:
            _turn(chat, runner, {"messages": [HumanMessage(line)]})


def _turn(chat: _Talk, runner: asyncio.Runner, payload: Any) -> None:
    try:
        while (request := runner.run(chat.step(payload))) is not None:
            payload = _answer(chat, request)
    except KeyboardInterrupt:
        _note("\n[stopped]")
    except (DeltaMemError, GraphRecursionError) as error:
        typer.secho(error_line(error), err=True, fg=typer.colors.RED)


def _answer(chat: _Talk, request: Mapping[str, Any]) -> Command[Any]:
    """Ask about each call that waits for leave; anything but yes declines it."""
    decisions = []
    for action in request["action_requests"]:
        typer.echo(f"{action['name']} needs your leave:\n{action['description']}\nyes or no?")
        said = next(chat.lines, "")
        approved = said.lower() in {"y", "yes"}
        decisions.append({"type": "approve"} if approved else {"type": "reject", "message": "declined by the user"})
    return Command(resume={"decisions": decisions})


def _show_new(messages: Any, seen: set[str | None]) -> None:
    """Print the messages of an update that were not printed before: middleware gives some of them again."""
    for message in messages if isinstance(messages, list) else [messages]:
        if isinstance(message, BaseMessage) and (message.id is None or message.id not in seen):
            seen.add(message.id)
            _show(message)


def _show(message: BaseMessage) -> None:
    if isinstance(message, ToolMessage):
        whole = message.artifact if isinstance(message.artifact, str) else message.text
        _note("\n".join(f"  {line}" for line in whole.splitlines()))
    elif isinstance(message, AIMessage):
        for call in message.tool_calls:
            typer.echo(f"→ {call['name']} {json.dumps(call['args'], ensure_ascii=False)}")
        for broken in message.invalid_tool_calls:
            typer.echo(f"→ a call that cannot be read: {broken['args']}")
        if message.text:
            typer.echo(message.text)


def _note(text: str) -> None:
    typer.secho(text, dim=True)
