"""The three ways to put ChatDeltaMem into a graph, each through everything that a graph can do to a thread."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRetryMiddleware
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, RetryPolicy, interrupt

from deltamem_agents import (
    ChatDeltaMem,
    DeltaMemMessagesState,
    DeltaMemMiddleware,
    WorkingMemory,
    memory_from,
    memory_node,
    open_checkpointer,
)

SMALL = {"window_tokens": 60, "keep_tokens": 20, "max_tokens": 8}
WIDE = {**SMALL, "window_tokens": 110, "keep_tokens": 40}  # a call and its result do not fit into SMALL
CALL_TOKENS = 80
WIRINGS = ["middleware", "node", "swap"]
TOLD = [f"my {thing} is hello and the weather in the result of {thing} is yes" for thing in ("name", "tool", "user")]
Build = Callable[..., Any]


@tool
def ask() -> str:
    """Ask the person."""
    return f"they said {interrupt('well?')}"


@tool
def look() -> str:
    """Look."""
    return "the result is yes"


class FlakyModel(ChatDeltaMem):
    """Lose the connection once, at the worst moment: after the reply is complete, before anybody has it."""

    failures: list[str] = []  # noqa: RUF012 (a pydantic field, copied for each instance)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        yield from super()._stream(messages, stop, run_manager, **kwargs)
        if self.failures:
            raise ConnectionError(self.failures.pop())


def asks_for_a_tool(messages: list[BaseMessage]) -> bool:
    return isinstance(messages[-1], HumanMessage) and messages[-1].text.startswith("use")


class CallWhenAsked(AgentMiddleware):
    """Force a call after "use …", because a random model makes none by itself."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        """Choose for the model."""
        return handler(self._forced(request))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        """Choose for the model."""
        return await handler(self._forced(request))

    def _forced(self, request: Any) -> Any:
        if not asks_for_a_tool(request.messages):
            return request
        return request.override(tool_choice="any", model_settings={"max_tokens": CALL_TOKENS})


def build_graph(wiring: str, model: ChatDeltaMem, saver: Any, tools: list[Any]) -> Any:
    if wiring != "node":
        memory = [DeltaMemMiddleware()] if wiring == "middleware" else []
        retry = ModelRetryMiddleware(max_retries=1, initial_delay=0.0, on_failure="error")
        return create_agent(model, tools, middleware=[retry, CallWhenAsked(), *memory], checkpointer=saver)
    free, forced = (
        model.bind_tools(tools),
        model.bind_tools(tools, tool_choice="any", max_tokens=CALL_TOKENS),
    )
    chosen: Runnable[Any, Any] = RunnableLambda(lambda messages: forced if asks_for_a_tool(messages) else free)
    graph = StateGraph(DeltaMemMessagesState, input_schema=MessagesState, output_schema=MessagesState)
    graph.add_node("model", memory_node(chosen), retry_policy=RetryPolicy(initial_interval=0, retry_on=ConnectionError))
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=saver)


@pytest.fixture(params=WIRINGS)
def build(request: pytest.FixtureRequest, make_model: Callable[..., ChatDeltaMem]) -> Iterator[Build]:
    """Build a graph of one wiring over the random model, with a checkpointer of its own."""
    with open_checkpointer("memory://") as saver:

        def make(*tools: Any, model: ChatDeltaMem | None = None) -> Any:
            return build_graph(request.param, model or make_model(**SMALL), saver, list(tools) or [look])

        yield make


def on(thread: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread}}


def say(graph: Any, config: dict[str, Any], text: str) -> str:
    return str(graph.invoke({"messages": [HumanMessage(text)]}, config)["messages"][-1].text)


def memory(graph: Any, config: dict[str, Any]) -> WorkingMemory:
    found = memory_from(graph.get_state(config))
    assert found is not None, "nothing has been absorbed"
    return found


def state(graph: Any, config: dict[str, Any]) -> bytes:
    """Return the state's bytes, which, unlike the digests, do not depend on the ids of messages."""
    return memory(graph, config).state.to_bytes()


def test_older_messages_leave_the_window_for_the_memory(build: Build) -> None:
    """After a few turns most messages are absorbed, each once, and the thread's memory says how many."""
    graph, config = build(), on("a")
    for text in TOLD:
        say(graph, config, text)
    absorbed = memory(graph, config)
    assert 3 <= absorbed.messages <= 5
    assert len(set(absorbed.digests)) == absorbed.messages


def test_a_tools_result_stays_with_its_call(build: Build, make_model: Callable[..., ChatDeltaMem]) -> None:
    """Calls run and come back; neither is absorbed without the other."""
    graph, config = build(model=make_model(**WIDE)), on("a")
    for _ in range(3):
        reply = graph.invoke({"messages": [HumanMessage("use a tool")]}, config)
        kinds = [type(message) for message in reply["messages"][-4:]]
        assert kinds == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert memory(graph, config).messages >= 4


def test_streaming_gives_the_text_and_the_memory_of_invoke(build: Build) -> None:
    """Streamed tokens add up to the reply, and the thread remembers the same."""
    graph, one, other = build(), on("invoked"), on("streamed")
    for text in TOLD:
        expected = say(graph, one, text)
        parts = graph.stream({"messages": [HumanMessage(text)]}, other, stream_mode="messages")
        assert "".join(chunk.text for chunk, _ in parts) == expected
    assert state(graph, one) == state(graph, other)


async def test_asynchronous_streaming_gives_the_same(build: Build) -> None:
    """The same holds for astream and ainvoke."""
    graph, one, other = build(), on("invoked"), on("streamed")
    for text in TOLD:
        result = await graph.ainvoke({"messages": [HumanMessage(text)]}, one)
        parts = graph.astream({"messages": [HumanMessage(text)]}, other, stream_mode="messages")
        assert "".join([chunk.text async for chunk, _ in parts]) == result["messages"][-1].text
    assert state(graph, one) == state(graph, other)


def test_a_thread_resumes_after_an_interrupt(build: Build, make_model: Callable[..., ChatDeltaMem]) -> None:
    """A tool may wait for a person; the answer goes on from the memory that was checkpointed."""
    graph, config = build(ask, model=make_model(**WIDE)), on("a")
    for text in (*TOLD, *TOLD):
        say(graph, config, text)
    stopped = graph.invoke({"messages": [HumanMessage("use the tool")]}, config)
    assert stopped["__interrupt__"][0].value == "well?"
    before = memory(graph, config)
    result = graph.invoke(Command(resume="hello"), config)
    assert [message.text for message in result["messages"] if isinstance(message, ToolMessage)] == ["they said hello"]
    assert memory(graph, config).digests[: before.messages] == before.digests


def test_a_retried_call_absorbs_once(build: Build, make_model: Callable[..., ChatDeltaMem]) -> None:
    """A call that fails after its reply is complete is made again from the same memory, with the same result."""
    flaky = FlakyModel(**dict(make_model(**SMALL)), failures=[])
    steady, wobbly = build(), build(model=flaky)
    for text in TOLD:
        flaky.failures.append("lost")
        assert say(steady, on("steady"), text) == say(wobbly, on("wobbly"), text)
        assert flaky.failures == []
    assert state(steady, on("steady")) == state(wobbly, on("wobbly"))
    assert memory(steady, on("steady")).messages == memory(wobbly, on("wobbly")).messages


def test_eight_threads_at_once_each_remember_their_own(build: Build, make_model: Callable[..., ChatDeltaMem]) -> None:
    """Conversations that share a model at the same time get the text and the state that each gets alone."""
    graph = build(model=make_model(**WIDE))
    words = ["user", "system", "tool", "hello", "yes", "no", "weather", "name"]

    def talk(name: str, word: str) -> tuple[list[str], bytes]:
        replies = [say(graph, on(name), f"{word} is {word} " * 4) for _ in range(5)]
        return replies, state(graph, on(name))

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(talk, [f"together {word}" for word in words], words))
    alone = list(map(talk, [f"alone {word}" for word in words], words))
    assert together == alone
    assert len({memory for _, memory in alone}) == len(words)


def test_a_fork_starts_from_the_memory_of_its_checkpoint(build: Build) -> None:
    """Going on from an older checkpoint gives what the thread would have become, and leaves the newer branch alone."""
    graph, config = build(), on("a")
    for text in TOLD:
        say(graph, config, text)
    old = next(s for s in graph.get_state_history(config) if not s.next and len(s.values["messages"]) == 4)
    direct = on("direct")
    for text in [*TOLD[:2], "what is the name"]:
        said = say(graph, direct, text)
    newest = graph.get_state(config).config
    forked = graph.invoke({"messages": [HumanMessage("what is the name")]}, old.config)
    assert forked["messages"][-1].text == said
    assert state(graph, config) == state(graph, direct) != state(graph, newest)


def test_a_replay_says_the_same_again(build: Build) -> None:
    """Running a checkpoint once more gives the same text and the same memory."""
    graph, config = build(), on("a")
    for text in TOLD:
        said = say(graph, config, text)
    expected = state(graph, config)
    before = next(s for s in graph.get_state_history(config) if s.next and "model" in s.next)
    replayed = graph.invoke(None, before.config)
    assert replayed["messages"][-1].text == said
    assert state(graph, config) == expected


def test_an_error_leaves_the_thread_usable(build: Build) -> None:
    """A message that is too large is refused; the thread goes on, and absorbs it as it must in the end."""
    graph, config = build(), on("a")
    say(graph, config, TOLD[0])
    with pytest.raises(Exception, match="the message to answer has"):
        say(graph, config, "hello " * 300)
    assert say(graph, config, TOLD[1])
    absorbed = memory(graph, config)
    assert absorbed.tokens > 300
    assert absorbed.messages == 3


@pytest.mark.parametrize("granularity", ["token", "message", "sentence"])
def test_a_new_engine_says_what_a_warm_one_says(
    granularity: str, make_model: Callable[..., ChatDeltaMem], registry: Any
) -> None:
    """What is asked before, and by whom, changes nothing: replies depend on thread and model alone."""
    adapter = make_model().adapter
    assert adapter is not None
    options = {"adapter": adapter.replace("token", granularity), **SMALL}

    def replies(model: ChatDeltaMem) -> list[str]:
        with open_checkpointer("memory://") as saver:
            graph = build_graph("middleware", model, saver, [look])
            return [*(say(graph, on("a"), text) for text in TOLD), state(graph, on("a")).hex()]

    cold = replies(make_model(**options, registry=type(registry)()))
    model = make_model(**options)
    assert list(itertools.repeat(cold, 2)) == [replies(model), replies(model)]
