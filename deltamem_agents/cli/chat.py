"""Hold a conversation in the terminal: one thread, streamed, resumed from its checkpoint."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import typer
from langchain_core.messages import AIMessageChunk, HumanMessage

from backbone import DeltaMemError
from deltamem_agents.checkpoint import open_checkpointer
from deltamem_agents.cli.escaping import printable
from deltamem_agents.cli.progress import error_line, print_error, working
from deltamem_agents.cli.terminal import note, open_model, typed
from deltamem_agents.settings import Settings

__all__ = ["run_chat", "status_line"]


def run_chat(thread: str, settings: Settings) -> None:
    """Read lines from stdin and stream replies to stdout until the input ends.

    Raises DeltaMemError if model, adapter or database cannot be opened; an error of one turn is printed, and the talk
    goes on.
    """
    # Runner.run turns Ctrl-C into the cancellation of the reply, which stops the decoding, and then raises here.
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        key = None if settings.aes_key is None else settings.aes_key.get_secret_value()
        with working("opening the threads"):
            saver = runner.run(stack.enter_async_context(open_checkpointer(settings.db, aes_key=key)))
        try:
            # After the database, which is refused at once if it cannot be opened: these take seconds to import.
            with working("loading"):
                from langchain.agents import create_agent

                from deltamem_agents.middleware import DeltaMemMiddleware

            # Loaded here, so that what cannot be loaded ends the program instead of the first turn.
            chat_model = open_model(settings)
            agent = create_agent(chat_model, middleware=[DeltaMemMiddleware()], checkpointer=saver)
            _converse(_Talk(agent, thread), runner)
        finally:
            runner.run(stack.aclose())


class _Talk:
    """One thread of an agent."""

    def __init__(self, agent: Any, thread: str) -> None:
        self.agent = agent
        self.thread = thread
        self.config = {"configurable": {"thread_id": thread}}

    async def reply(self, text: str, show: Callable[[str], None]) -> None:
        """Send one message, and hand each piece of the reply to `show`."""
        messages = {"messages": [HumanMessage(text)]}
        async for chunk, _ in self.agent.astream(messages, self.config, stream_mode="messages"):
            if isinstance(chunk, AIMessageChunk):
                show(chunk.text)

    async def status(self) -> str:
        """Say in one line what the thread holds."""
        snapshot = await self.agent.aget_state(self.config)
        return status_line(self.thread, snapshot.values)


def status_line(thread: str, values: Mapping[str, Any]) -> str:
    """Return one line: what of this graph state is in the window, and what is absorbed."""
    from deltamem_agents.memory_cell import memory_from

    total = len(values.get("messages", ()))
    memory = memory_from(values)
    absorbed, tokens = (0, 0) if memory is None else (memory.messages, memory.tokens)
    return f"[thread {thread} · window: {total - absorbed} messages · absorbed: {absorbed} messages, {tokens:,} tokens]"


def _converse(talk: _Talk, runner: asyncio.Runner) -> None:
    note(runner.run(talk.status()))
    for text in typed():
        if text:
            _turn(talk, runner, text)


def _turn(talk: _Talk, runner: asyncio.Runner, text: str) -> None:
    try:
        runner.run(talk.reply(text, lambda piece: typer.echo(printable(piece), nl=False)))
        typer.echo()
        note(runner.run(talk.status()))
    except KeyboardInterrupt:
        note("\n[stopped]")
    except DeltaMemError as error:
        typer.echo()
        print_error(error_line(error))
