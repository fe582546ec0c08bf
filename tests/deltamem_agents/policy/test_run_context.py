"""Policies are told in which thread they are asked, and with what data the graph was called, by every wiring."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from deltamem_agents import ChatDeltaMem, DeltaMemMessagesState, HybridMemory, MemoryStore, memory_node
from deltamem_agents.policy import MemoryPolicy, PolicyContext, PolicyMessage, Retain, Retrieve, Signals

ANN = ("user", "ann")
SEARCH = AIMessage("", tool_calls=[{"name": "search_memory", "args": {"query": "the port"}, "id": "s"}], id="call")


class Scripted(GenericFakeChatModel):
    """A model that says what it is told to, and calls tools."""

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        return self


@dataclass
class Told(MemoryPolicy):
    """Note the context of each question."""

    seen: list[tuple[str, PolicyContext]] = field(default_factory=list)

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        self.seen.append((message.text, signals.context))
        return Retain(reason="noted")

    def retrieve(self, query: str, context: PolicyContext) -> Retrieve:
        self.seen.append((query, context))
        return Retrieve(reason="noted")


@dataclass
class Tenant:
    """Be a graph's run context."""

    tenant: str


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    """Open an empty archive that is searched by words."""
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as opened:
        yield opened


def with_middleware(hybrid: HybridMemory, model: Any) -> Any:
    middleware, saver = hybrid.middleware(), InMemorySaver()
    return create_agent(model, [hybrid.search_tool()], middleware=middleware, checkpointer=saver, context_schema=Tenant)


def with_hooks(hybrid: HybridMemory, model: Any) -> Any:
    from langgraph.prebuilt import create_react_agent

    hooks: dict[str, Any] = {"pre_model_hook": hybrid.pre_model_hook, "post_model_hook": hybrid.post_model_hook}
    return create_react_agent(
        model, [hybrid.search_tool()], **hooks, checkpointer=InMemorySaver(), context_schema=Tenant
    )


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
@pytest.mark.parametrize("wire", [with_middleware, with_hooks])
def test_every_question_has_the_thread_and_the_data_of_the_run(store: MemoryStore, wire: Callable[..., Any]) -> None:
    """About messages, about the question, and about what the search tool is asked for."""
    policy = Told()
    with HybridMemory(store, policy, namespace=ANN) as hybrid:
        agent = wire(hybrid, Scripted(messages=iter([SEARCH, AIMessage("It is 8443.")])))
        said: list[BaseMessage] = [HumanMessage("Which port?")]
        agent.invoke({"messages": said}, {"configurable": {"thread_id": "one"}}, context=Tenant("acme"))
        hybrid.flush()
    # The hooks ask about a reply without text as well.
    assert {text for text, _ in policy.seen} - {""} == {"Which port?", "the port", "It is 8443."}
    assert {(context.namespace, context.thread) for _, context in policy.seen} == {(ANN, "one")}
    assert [dict(context.run) for _, context in policy.seen] == [{"tenant": "acme"}] * len(policy.seen)


def test_a_node_tells_the_data_of_the_run(make_model: Callable[..., ChatDeltaMem]) -> None:
    """`memory_node` in a graph of one's own does as well."""
    policy = Told()
    builder = StateGraph(DeltaMemMessagesState, context_schema=Tenant)
    builder.add_node("model", memory_node(make_model(max_tokens=4), policy=policy))
    builder.add_edge(START, "model")
    graph: Any = builder.compile(checkpointer=InMemorySaver())
    graph.invoke({"messages": [HumanMessage("hello you")]}, {"configurable": {"thread_id": "one"}}, context=Tenant("b"))
    assert [(context.thread, dict(context.run)) for _, context in policy.seen] == [("one", {"tenant": "b"})] * 2


def test_outside_a_graph_there_is_no_run(store: MemoryStore) -> None:
    """A search that a program makes itself has the namespace alone."""
    policy = Told()
    with HybridMemory(store, policy, namespace=ANN) as hybrid:
        hybrid.recall("the port")
    ((_, context),) = policy.seen
    assert (context.namespace, context.thread, dict(context.run)) == (ANN, None, {})
