"""Be the first process: hear six conventions, then work on other things until none of them is in the prompt."""

import json
import os
import sys
from pathlib import Path

from langchain_core.runnables import RunnableConfig

from deltamem_agents import TurnReport, open_checkpointer
from examples.demo.agent import DemoAgent, Said
from examples.demo.script import FACTS, OTHER_VALUES, mentions, unrelated_work

__all__ = ["main"]

WORK_TOKENS = 1_500
WORK_SEED = 7


def main(folder: Path) -> None:
    """Talk to the threads `main` and `other`; leave the database and `tell.json` in `folder`."""
    print(f"process {os.getpid()}: a conversation begins\n")
    with open_checkpointer(f"sqlite:///{folder / 'threads.sqlite'}") as saver:
        agent = DemoAgent(saver, folder / "project")
        values = [fact.value for fact in FACTS]
        told, work = _thread(agent, "main", values, show=True)
        last = work[-1].reports[-1]
        _print_check(agent, work, last)
        _thread(agent, "other", list(OTHER_VALUES), show=False)
        print("\nAnother thread has been told other values for the same six things; it will serve as a control.")
    seconds = [said.seconds for said in told + work]
    (folder / "tell.json").write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
    print(f"process {os.getpid()} ends here")


def _thread(agent: DemoAgent, thread: str, values: list[str], *, show: bool) -> tuple[list[Said], list[Said]]:
    """Tell `values`, then do unrelated work: at least WORK_TOKENS of it, and until no value is in the prompt."""
    config: RunnableConfig = {"configurable": {"thread_id": thread}}
    told = []
    for fact, value in zip(FACTS, values, strict=True):
        told.append(agent.say(fact.told(value), config))
        if show:
            print(f"  you   {fact.told(value)}\n  agent {told[-1].reply}")
    work: list[Said] = []
    for text in unrelated_work(WORK_SEED):
        work.append(agent.say(text, config))
        if show:
            print(f"  you   {text.splitlines()[0]} …" if "\n" in text else f"  you   {text}")
            for asked, _ in work[-1].calls:
                print(f"  tool  {asked}")
            print(f"  agent {work[-1].reply}")
        tokens = work_tokens(agent, work)
        named = any(mentions(work[-1].prompts, value) for value in values)
        if tokens >= 2 * WORK_TOKENS or (tokens >= WORK_TOKENS and not named):
            break
    return told, work


def work_tokens(agent: DemoAgent, work: list[Said]) -> int:
    """Count the tokens of everything said, called and read during the unrelated work."""
    return sum(agent.count_tokens(message.text) for said in work for message in said.messages)


def _print_check(agent: DemoAgent, work: list[Said], last: TurnReport) -> None:
    found = [fact.value for fact in FACTS if mentions(last.prompt_text, fact.value)]
    print(
        f"\n{len(work)} turns and {work_tokens(agent, work):,} tokens of unrelated work later, the prompt has "
        f"{last.prompt_tokens} tokens in {last.window_messages} messages; {last.absorbed_messages} are absorbed."
    )
    print(f"Conventions whose value is in the prompt: {', '.join(found) or 'none'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
