"""Recall over many turns whose replies quote what was recalled for them."""

from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver

from deltamem_agents import HybridMemory, MemoryStore
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.policy import MemoryPolicy, Novelty, PolicyChain

ANN = ("user", "ann")


class Quoting(BaseChatModel):
    """A model whose every reply is another one and quotes all that was recalled for it."""

    blocks: list[list[str]]

    @property
    def _llm_type(self) -> str:
        return "quoting"

    def _generate(self, messages: list[BaseMessage], *rest: Any, **options: Any) -> ChatResult:
        block = next((message.text for message in messages if message.text.startswith("<recalled>")), "")
        self.blocks.append([line for line in block.splitlines() if line.startswith("[m:")])
        quoted = "; ".join(line.partition(": ")[2] for line in self.blocks[-1])
        said = AIMessage(f"Answer {len(self.blocks)}. From earlier: {quoted}")
        return ChatResult(generations=[ChatGeneration(message=said)])


@pytest.mark.parametrize("policy", [None, Novelty(similarity=0.6)], ids=["everything", "novelty"])
def test_replies_that_quote_feed_no_loop(tmp_path: Path, policy: MemoryPolicy | None) -> None:
    """200 turns whose replies quote what was recalled leave what was said, once each, and replies do not grow.

    Where a policy keeps out what says little new, the archive does not grow either, and the source is always shown.
    """
    chain = None if policy is None else PolicyChain([policy], timeout=None)
    with (
        MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as store,
        HybridMemory(store, chain, namespace=ANN, budget_tokens=128) as hybrid,
    ):
        source = store.records.add(ANN, NewRecord("Port 8443 is for staging."))
        said = {source.text}
        model = Quoting(blocks=[])
        agent = create_agent(model, middleware=hybrid.middleware(), checkpointer=InMemorySaver())
        for number in range(200):
            question = f"Question {number}: which port is for staging?"
            thread: Any = {"configurable": {"thread_id": f"thread {number % 10}"}}
            reply = agent.invoke({"messages": [HumanMessage(question)]}, thread)["messages"][-1]
            said |= {question, reply.text}
            hybrid.flush()
            assert len(reply.text) < 4 * 128 + len("Answer 200. From earlier: ")
            shown = [found["id"] for found in reply.response_metadata["recalled"] if found["verdict"] == "shown"]
            assert shown
            assert policy is None or source.id in shown
        texts = [record.text for record in store.records.list(ANN, limit=1000)]
    assert len(texts) == len(set(texts))
    assert set(texts) == said if policy is None else (set(texts) < said and len(texts) < 10)
