"""Play the same conversation with each agent before and after the swap: python -m examples.swap_in."""

import warnings
from importlib import import_module
from typing import Any

from deltamem_agents import open_checkpointer

__all__ = ["AGENTS", "FACT", "QUESTION", "converse", "unrelated"]

AGENTS = ("agent", "react_agent", "graph")
FACT = "We run the tests with make test."
QUESTION = "How do we run the tests?"
_WINDOW_TOKENS = 160
_TURNS_BETWEEN = 4


def converse(agent: Any) -> str:
    """Tell the agent a fact, show it logs until the fact has left its window, and return what it then answers."""
    config = {"configurable": {"thread_id": "1"}}
    work = [unrelated(turn) for turn in range(_TURNS_BETWEEN)]
    reply = ""
    for text in (FACT, *work, QUESTION):
        reply = agent.invoke({"messages": [{"role": "user", "content": text}]}, config)["messages"][-1].text
    return reply


def unrelated(turn: int) -> str:
    """Return a few lines that have nothing to do with the fact."""
    return "Check this:\n" + "\n".join(f"10:{turn}{n}:00 INFO loader: loaded {200 + 7 * n} rows" for n in range(5))


def main() -> None:
    """Print what each agent answers."""
    print(f"told:  {FACT}\nasked: {QUESTION}, after {_TURNS_BETWEEN} turns about something else\n")
    for name in AGENTS:
        for version in ("before", "after"):
            with open_checkpointer("memory://") as saver, warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="create_react_agent has been moved")
                agent = import_module(f"examples.swap_in.{name}.{version}").build(saver, _WINDOW_TOKENS)
                print(f"{name:<12} {version:<7} {converse(agent)}")


if __name__ == "__main__":
    main()
