"""Be the second process: resume the thread from the database, ask, and compare with two controls."""

import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig

from backbone import MemoryState
from deltamem_agents import WorkingMemory, memory_from, open_checkpointer, use_memory
from examples.demo.agent import DemoAgent
from examples.demo.picture import save_picture
from examples.demo.script import FACTS, RUN_REQUEST, Fact, mentions

__all__ = ["main"]


def main(folder: Path) -> None:
    """Ask for every convention and have one used; leave `ask.json` and `memory.png` in `folder`."""
    print(f"process {os.getpid()}: the thread is resumed from {folder / 'threads.sqlite'}\n")
    with open_checkpointer(f"sqlite:///{folder / 'threads.sqlite'}") as saver:
        agent = DemoAgent(saver, folder / "project")
        # Each question starts from the checkpoint that the first process left, so no answer can help the next one.
        left = agent.graph.get_state({"configurable": {"thread_id": "main"}})
        memory = _memory(left)
        other = _memory(agent.graph.get_state({"configurable": {"thread_id": "other"}}))
        controls = {"zeroed": memory.with_state(_zeros(memory.state)), "other thread": memory.with_state(other.state)}
        answers = [_ask(agent, left, fact, controls) for fact in FACTS]
        run, seconds = _run(agent, left.config)
    save_picture(memory.state, folder / "memory.png")
    results = {"answers": answers, "run": run, "seconds": seconds, "memory_bytes": len(memory.to_bytes())}
    results["checkpoint_bytes"] = _checkpoint_bytes(folder / "threads.sqlite", left.config)
    (folder / "ask.json").write_text(json.dumps(results), encoding="utf-8")


def _memory(snapshot: Any) -> WorkingMemory:
    memory = memory_from(snapshot.values)
    if memory is None:
        raise SystemExit("the thread has absorbed nothing; was the first process run?")
    return memory


def _zeros(state: MemoryState) -> MemoryState:
    return MemoryState({name: torch.zeros_like(layer) for name, layer in state.layers.items()}, state.fingerprint)


def _ask(agent: DemoAgent, left: Any, fact: Fact, controls: dict[str, WorkingMemory]) -> dict[str, Any]:
    said = agent.say(fact.question, left.config)
    print(f"  you   {fact.question}\n  agent {said.reply}")
    answer: dict[str, Any] = {
        "fact": f"{fact.name}: {fact.value}",
        "in prompt": mentions(said.prompts, fact.value),
        "memory": (said.reply, mentions(said.reply, fact.value)),
    }
    model = agent.model.bind_tools(agent.tools)
    for name, memory in controls.items():
        with use_memory(memory.to_bytes(), read_only=True):
            reply = model.invoke([*left.values["messages"], HumanMessage(fact.question)])
        answer[name] = (reply.text, mentions(reply.text, fact.value))
    return answer


def _run(agent: DemoAgent, config: RunnableConfig) -> tuple[dict[str, Any], float]:
    """Ask for the tests to be run, and show the command and what it printed."""
    said = agent.say(RUN_REQUEST, config)
    print(f"\n  you   {RUN_REQUEST}")
    for command, output in said.calls:
        print(f"  runs  {command}")
        print("".join(f"        {line}\n" for line in output.splitlines()), end="")
    print(f"  agent {said.reply}")
    told = FACTS[0].value
    # Only the first call is made from a prompt in which the command cannot have appeared as a tool's argument.
    ran = said.calls[0][0] if said.calls else None
    in_prompt = mentions(said.reports[0].prompt_text, told)
    return {"command": ran, "told": told, "in prompt": in_prompt}, said.seconds


def _checkpoint_bytes(database: Path, config: RunnableConfig) -> int:
    """Return the size of one checkpoint's row: messages, memory and all."""
    with closing(sqlite3.connect(database)) as connection:
        row = connection.execute(
            "SELECT length(checkpoint) FROM checkpoints WHERE thread_id = ? AND checkpoint_id = ?",
            (config["configurable"]["thread_id"], config["configurable"]["checkpoint_id"]),
        ).fetchone()
    return int(row[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
