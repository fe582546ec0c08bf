"""Move an agent's old thread, plain messages in a checkpoint, to memory.

python -m examples.swap_in.move_thread sqlite:///threads.sqlite THREAD
"""

import sys
from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig

from deltamem_agents import ChatDeltaMem, ConfigError, HybridMemory, WorkingMemory, open_checkpointer, use_memory
from deltamem_agents.cli.options import threads_url
from deltamem_agents.cli.progress import errors_as_lines
from examples.swap_in.agent.after import build

__all__ = ["main", "move_thread"]


def move_thread(agent: Any, model: ChatDeltaMem, config: RunnableConfig, *, archive: HybridMemory | None = None) -> int:
    """Absorb what does not fit into the model's window, archive everything, and return how many messages left.

    Nothing is said, and no message changes. It need not be done: the first turn after the swap absorbs the same. Done
    beforehand, nobody waits for it. Raises ConfigError for a thread without messages.
    """
    messages = agent.get_state(config).values.get("messages")
    thread = config["configurable"]["thread_id"]
    if not messages:
        raise ConfigError(f"there is no thread {thread!r} to move")
    if archive is not None:
        archive.archive(messages, thread)
        archive.flush()
    with use_memory() as cell:
        model.invoke(messages, max_tokens=1)  # the reply is thrown away
    if cell.out is None:
        return 0
    agent.update_state(config, {"delta_mem": cell.out}, as_node="model")
    return WorkingMemory.from_bytes(cell.out).messages


def main(arguments: Sequence[str]) -> None:
    """Move one thread of a database, and say what became of it; raises ConfigError for what is not there."""
    if len(arguments) != 2:
        raise ConfigError("name a database and one of its threads, such as sqlite:///threads.sqlite THREAD")
    url, thread = threads_url(arguments[0], how="the first argument"), arguments[1]
    model = ChatDeltaMem()
    window, _ = model.window
    with open_checkpointer(url) as saver:
        moved = move_thread(build(saver, window), model, {"configurable": {"thread_id": thread}})
    print(f"{moved} messages are in the working memory, the others in the window")


if __name__ == "__main__":
    with errors_as_lines():
        main(sys.argv[1:])
