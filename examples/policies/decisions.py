"""Keep decisions and conventions, and a stack trace for an hour: python -m examples.policies.decisions."""

import re
import tempfile
from datetime import timedelta

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from deltamem_agents import HybridMemory, MemoryStore
from deltamem_agents.policy import MemoryPolicy, PolicyChain, PolicyMessage, Retain, Secrets, Signals

__all__ = ["CONVERSATION", "Decisions"]

LASTING = re.compile(r"\b(we (use|decided|prefer|always|never)|convention|decision|from now on)\b", re.IGNORECASE)


class Decisions(MemoryPolicy):
    """Keep what a person decides; keep a stack trace for an hour; keep nothing else."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:  # noqa: ARG002 - the text is enough
        """Decide by source and words."""
        if "Traceback (most recent call last)" in message.text:
            return Retain(working=False, ttl=timedelta(hours=1), reason="a stack trace is for now")
        if message.source == "user" and LASTING.search(message.text):
            return Retain(tags=("convention",), reason="a decision or a convention")
        return Retain(working=False, archive=False, reason="neither decision nor convention")


CONVERSATION: tuple[BaseMessage, ...] = (
    HumanMessage("Good morning!", id="1"),
    HumanMessage("We decided to use ruff; the CI token is " + "ghp_" + "a1B2c3D4e5F6" * 3, id="2"),
    AIMessage("Noted.", id="3"),
    ToolMessage("Traceback (most recent call last): KeyError: 'port'", tool_call_id="c", name="shell", id="4"),
)


def main() -> None:
    """Print what the archive keeps of a conversation under this policy."""
    policy = PolicyChain([Secrets(), Decisions()])
    with (
        tempfile.TemporaryDirectory() as folder,
        MemoryStore.from_url(f"sqlite:///{folder}/archive.sqlite") as store,
        HybridMemory(store, policy, namespace=("acme",)) as memory,
    ):
        memory.archive(CONVERSATION, "t")
        memory.flush()
        for record in store.records.list(("acme",)):
            expires = "for good" if record.expires is None else f"until {record.expires:%H:%M}"
            print(f"kept {expires}, tags {list(record.tags)}: {record.text}")
        print(f"{len(CONVERSATION)} messages were said")


if __name__ == "__main__":
    main()
