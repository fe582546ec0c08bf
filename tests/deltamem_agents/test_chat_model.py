"""ChatDeltaMem by itself: options, streaming, sampling, stop, tools, structure, errors."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
import torch
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.tools import tool
from pydantic import BaseModel, ValidationError

from backbone import ConfigError, EngineRegistry, PromptError, WindowOverflowError
from deltamem_agents import ChatDeltaMem, WorkingMemory, use_memory

MakeModel = Callable[..., ChatDeltaMem]


@tool
def lights(on: bool) -> str:
    """Switch the lights."""
    return f"lights {'on' if on else 'off'}"


@tool
def ping() -> str:
    """Answer."""
    return "pong"


class Level(BaseModel):
    """A level."""

    high: bool
    steady: bool


class LevelDict(TypedDict):
    """A level."""

    high: bool
    steady: bool


def test_a_stream_adds_up_to_the_reply(model: ChatDeltaMem) -> None:
    """Streamed text equals invoked text; usage, name and reason come in the last chunk alone."""
    chunks = list(model.stream("hello"))
    assert "".join(chunk.text for chunk in chunks) == model.invoke("hello").text != ""
    assert [chunk.usage_metadata is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    last = chunks[-1]
    assert isinstance(last, AIMessageChunk)
    assert last.chunk_position == "last"
    assert last.usage_metadata is not None
    assert last.usage_metadata["output_tokens"] == 12
    assert last.response_metadata["finish_reason"] == "length"
    assert last.response_metadata["model_name"] == model.model


def test_paths_and_torch_names_say_the_same_as_text(model_folder: Path, registry: EngineRegistry) -> None:
    """What load_backbone takes, ChatDeltaMem takes: the same engine answers, and calls and traces name it as text."""
    given: dict[str, Any] = {"model": model_folder, "adapter": model_folder / "token", "dtype": torch.float32}
    options: dict[str, Any] = {"max_tokens": 4, "registry": registry}
    model = ChatDeltaMem(**given, device=torch.device("cpu"), **options)
    texts = {name: str(value).removeprefix("torch.") for name, value in given.items()}
    same = ChatDeltaMem(**texts, device="cpu", **options)
    assert model.engine is same.engine
    assert model.asdict() == same.asdict()
    reply = model.invoke("hello", model=model_folder)
    assert reply.response_metadata["model_name"] == str(model_folder)
    assert reply.text == same.invoke("hello").text != ""
    with pytest.raises(ValidationError):
        ChatDeltaMem(dtype="float12")  # type: ignore[arg-type] # which is what is tested


def test_a_history_is_absorbed_once_in_any_order_and_again_under_new_ids(make_model: MakeModel) -> None:
    """A message is known by its id: shuffled and repeated it is the same, and with another id it is another one."""
    model = make_model(max_tokens=2, keep_tokens=1)

    def absorbed(memory: bytes | None, *history: HumanMessage) -> WorkingMemory:
        with use_memory(memory) as cell:
            model.invoke([*history, HumanMessage("what is my name", id="asked")])
        assert cell.current is not None
        return WorkingMemory.from_bytes(cell.current)

    told = [HumanMessage(f"my name is hello {word} " * 3, id=word) for word in ("yes", "no", "weather", "tool", "user")]
    once = absorbed(None, *told)
    shuffled = absorbed(once.to_bytes(), *reversed(told), *told)
    assert once.messages == shuffled.messages == len(told)
    assert shuffled.to_bytes() == once.to_bytes()
    renamed = [message.model_copy(update={"id": f"new {message.id}"}) for message in told]
    assert absorbed(once.to_bytes(), *renamed).messages == 2 * len(told)


def test_tokens_are_counted_as_the_model_reads_them(model: ChatDeltaMem) -> None:
    """Counting renders the prompt that a call would read, tools included, with the model's own tokenizer."""
    messages = [SystemMessage("hello"), HumanMessage("what is my name")]
    reply = model.invoke(messages)
    assert reply.usage_metadata is not None
    assert model.get_num_tokens_from_messages(messages) == reply.usage_metadata["input_tokens"]
    offered = model.bind_tools([ping]).invoke(messages)
    assert offered.usage_metadata is not None
    assert model.get_num_tokens_from_messages(messages, [ping]) == offered.usage_metadata["input_tokens"]
    assert model.engine.backbone.tokenizer.decode(model.get_token_ids("hello you")) == "hello you"


async def test_async_gives_the_same_reply(model: ChatDeltaMem) -> None:
    """Asynchronous calls run on the inference thread and say what invoke says."""
    expected = model.invoke("hello").text
    assert (await model.ainvoke("hello")).text == expected
    assert "".join([chunk.text async for chunk in model.astream("hello")]) == expected


def test_a_seed_fixes_a_sampled_reply_and_options_can_be_given_per_call(make_model: MakeModel) -> None:
    """Equal seeds repeat, other seeds differ, and a call's options win over the constructor's."""
    model = make_model(temperature=1.5, seed=1)
    assert model.invoke("hello").text == model.invoke("hello").text
    assert model.invoke("hello").text != model.invoke("hello", seed=2).text
    assert model.invoke("hello", temperature=0.0).text == make_model().invoke("hello").text
    short = model.invoke("hello", max_tokens=3)
    assert short.usage_metadata is not None
    assert short.usage_metadata["output_tokens"] == 3


def test_text_ends_before_a_stop_string(make_model: MakeModel) -> None:
    """Stop strings work on text, from the constructor and per call, and the reason is "stop"."""
    full = make_model().invoke("hello").text
    stop = full[3:5]
    for reply in (make_model().invoke("hello", stop=[stop]), make_model(stop=[stop]).invoke("hello")):
        assert reply.text == full[: full.index(stop)]
        assert reply.response_metadata["finish_reason"] == "stop"


def test_one_stop_string_is_one(make_model: MakeModel) -> None:
    """Given by itself, not in a list, it is met as a whole, not by its characters."""
    full = make_model().invoke("hello").text
    other: Any = f"{full[3]}☃"
    assert make_model().invoke("hello", stop=other).text == full


def test_options_for_the_chat_template_reach_it(make_model: MakeModel) -> None:
    """template_options go to the template; here another template."""
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    with use_memory() as cell:
        make_model(template_options={"chat_template": template}).invoke("hello")
    assert cell.report is not None
    assert cell.report.prompt_text == "hello"


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("any", {"lights", "ping"}),
        ("required", {"lights", "ping"}),
        (True, {"lights", "ping"}),
        ("ping", {"ping"}),
        ({"type": "function", "function": {"name": "lights"}}, {"lights"}),
    ],
)
def test_a_forced_call_is_made_and_fits_its_schema(make_model: MakeModel, choice: Any, called: set[str]) -> None:
    """Whatever the model would say, decoding leaves only one valid call, streamed as one chunk."""
    bound = make_model(max_tokens=200).bind_tools([lights, ping], tool_choice=choice)
    chunks = list(bound.stream("hello"))
    parts = [part for chunk in chunks if isinstance(chunk, AIMessageChunk) for part in chunk.tool_call_chunks]
    assert len(parts) == 1
    reply = chunks[0]
    for chunk in chunks[1:]:
        reply = reply + chunk
    assert isinstance(reply, AIMessage)
    [call] = reply.tool_calls
    assert call["name"] in called
    assert {"lights": lights, "ping": ping}[call["name"]].invoke(call).content
    assert reply.response_metadata["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("choice", [None, "auto", False])
def test_a_free_choice_lists_the_tools_and_forces_nothing(model: ChatDeltaMem, choice: Any) -> None:
    """The tools are in the prompt; the random model calls none."""
    with use_memory() as cell:
        reply = model.bind_tools([ping], tool_choice=choice).invoke("hello")
    assert cell.report is not None
    assert '"ping"' in cell.report.prompt_text
    assert reply.tool_calls == []


def test_no_choice_hides_the_tools(model: ChatDeltaMem) -> None:
    """tool_choice "none" gives the reply of a model without tools."""
    assert model.bind_tools([ping], tool_choice="none").invoke("hello").text == model.invoke("hello").text


def test_several_forced_calls_are_allowed_on_request(make_model: MakeModel) -> None:
    """parallel_tool_calls lets a forced reply hold more than one call; each is valid."""
    model = make_model(max_tokens=400, temperature=1.0)
    bound = model.bind_tools([ping], tool_choice="any", parallel_tool_calls=True)
    replies = (bound.invoke("hello", seed=seed).tool_calls for seed in range(20))
    calls = max(replies, key=len)
    assert len(calls) > 1
    assert {call["name"] for call in calls} == {"ping"}
    assert len({call["id"] for call in calls}) == len(calls)


@pytest.mark.parametrize(
    "choice",
    [
        "missing",
        {"type": "function", "function": {"name": "missing"}},
        {"function": "ping"},
        {"type": "auto"},
        ["ping"],
        0,
        1,
    ],
)
def test_a_choice_that_names_no_tool_is_refused(model: ChatDeltaMem, choice: Any) -> None:
    """The error names the tools there are, before anything is run."""
    with pytest.raises(ConfigError, match="tool_choice"):
        model.bind_tools([ping], tool_choice=choice)


def test_a_call_cut_off_is_an_invalid_call(make_model: MakeModel) -> None:
    """What max_tokens leaves of a call is reported as it stands and never repaired into a call."""
    reply = make_model(max_tokens=25).bind_tools([lights], tool_choice="any").invoke("hello")
    assert reply.tool_calls == []
    [broken] = reply.invalid_tool_calls
    assert broken["args"] is not None
    assert broken["args"].startswith('<tool_call>\n{"name": "lights"')
    assert reply.response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize("method", ["function_calling", "json_schema", "json_mode"])
@pytest.mark.parametrize("schema", [Level, LevelDict, Level.model_json_schema()], ids=["pydantic", "typeddict", "json"])
def test_structured_output_fits_the_schema(make_model: MakeModel, method: Any, schema: Any) -> None:
    """Every method gives an instance for a pydantic class and a dict with the keys otherwise, invoked or streamed."""
    structured = make_model(max_tokens=200).with_structured_output(schema, method=method, strict=True)
    for result in (structured.invoke("hello"), list(structured.stream("hello"))[-1]):
        values = result.model_dump() if isinstance(result, Level) else result
        assert isinstance(result, Level) == (schema is Level)
        assert set(values) == {"high", "steady"}
        assert all(isinstance(value, bool) for value in values.values())


def test_the_raw_reply_comes_along_on_request(make_model: MakeModel) -> None:
    """include_raw gives the message too, and the parsing error of a reply that was cut off."""
    whole = make_model(max_tokens=200).with_structured_output(Level, method="json_schema", include_raw=True)
    result = whole.invoke("hello")
    assert isinstance(result, dict)
    assert isinstance(result["raw"], AIMessage)
    assert isinstance(result["parsed"], Level)
    cut = make_model(max_tokens=4).with_structured_output(LevelDict, method="json_schema", include_raw=True)
    result = cut.invoke("hello")
    assert isinstance(result, dict)
    assert result["parsed"] is None
    assert isinstance(result["parsing_error"], OutputParserException)


def test_json_cut_off_by_max_tokens_is_an_error_not_a_guess(make_model: MakeModel) -> None:
    """LangChain's parser would close the braces itself; this one says what happened."""
    cut = make_model(max_tokens=8).with_structured_output(LevelDict, method="json_schema")
    with pytest.raises(OutputParserException, match="max_tokens"):
        cut.invoke("hello")


def test_response_format_is_read_as_hosted_models_read_it(make_model: MakeModel) -> None:
    """An object can be forced, text forces nothing, other kinds are refused, and a forced tool beside it too."""
    model = make_model()
    assert model.invoke("hello", response_format={"type": "json_object"}, max_tokens=60).text.startswith("{")
    assert model.invoke("hello", response_format={"type": "text"}).text == model.invoke("hello").text
    with pytest.raises(ConfigError, match="response_format"):
        model.invoke("hello", response_format={"type": "yaml"})
    with pytest.raises(ConfigError, match="both"):
        model.bind_tools([ping], tool_choice="any").invoke("hello", response_format={"type": "json_object"})
    with pytest.raises(ConfigError, match="method"):
        model.with_structured_output(Level, method="guess")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"windo_tokens": 5},
        {"window_tokens": 10, "keep_tokens": 10},
        {"temperature": -1},
        {"max_tokens": 0},
        {"top_p": 0},
    ],
)
def test_options_that_cannot_work_are_refused_at_once(options: dict[str, Any]) -> None:
    """A misspelt or impossible option raises before any weights are loaded."""
    with pytest.raises(ValidationError):
        ChatDeltaMem(**options)


def test_an_unknown_option_of_a_call_is_refused(model: ChatDeltaMem) -> None:
    """A misspelt option of a call is not ignored."""
    with pytest.raises(ConfigError, match="temprature"):
        model.invoke("hello", temprature=1)


def test_options_of_hosted_models_are_accepted() -> None:
    """A key, retries and a timeout mean nothing here, and do no harm."""
    ChatDeltaMem(api_key="x", max_retries=2, timeout=60)


def test_defaults_depend_on_the_model() -> None:
    """The bundled model shows 512 and keeps 128, others 4,096 and 1,024; a small window keeps a quarter."""
    assert ChatDeltaMem().window == (512, 128)
    assert ChatDeltaMem(model="org/name").window == (4096, 1024)
    assert ChatDeltaMem(window_tokens=100).window == (100, 25)
    assert ChatDeltaMem().profile is not None
    assert ChatDeltaMem().profile["max_input_tokens"] == 512


def test_a_call_may_name_another_model(model: ChatDeltaMem, model_folder: Any) -> None:
    """The `model` option of a call runs that model, and the reply says so."""
    other = model.model_copy(update={"model": "elsewhere"})
    assert other.invoke("hello", model=str(model_folder)).response_metadata["model_name"] == str(model_folder)


def test_errors_come_from_the_projects_tree_and_leave_the_model_usable(model: ChatDeltaMem) -> None:
    """An empty list, too large a message and a prompt beyond the model's positions are refused; the next call works."""
    for messages, error in (
        ([], PromptError),
        ([HumanMessage("hello " * 300)], WindowOverflowError),
        ([SystemMessage("hello " * 5000), HumanMessage("hello")], PromptError),
    ):
        with pytest.raises(error):
            model.invoke(messages)
    assert model.invoke("hello").text


def test_weights_are_loaded_by_the_first_reply_and_shared(model_folder: Any) -> None:
    """Making models is free; two of one kind share an engine, and the engine is not part of what is serialised."""
    registry = EngineRegistry()
    options: dict[str, Any] = {"model": str(model_folder), "adapter": str(model_folder / "token"), "registry": registry}
    one, two = ChatDeltaMem(**options), ChatDeltaMem(**options, temperature=0.5)
    assert one.engine is two.engine
    assert "registry" not in one.model_dump()
    registry.close()


async def test_cancelling_a_coroutine_stops_the_decoding(make_model: MakeModel) -> None:
    """After cancellation no further token is decoded, and the engine serves others."""
    model = make_model(max_tokens=3000)
    loop, begun, fed = asyncio.get_running_loop(), asyncio.Event(), []

    def count(*_: object) -> None:
        fed.append(None)
        if len(fed) == 5:
            loop.call_soon_threadsafe(begun.set)

    hook = model.engine.backbone.model.backbone.register_forward_pre_hook(count)
    try:
        task = asyncio.create_task(model.ainvoke("hello"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await model.ainvoke("hello", max_tokens=1)  # queued behind the step that was under way
        steps = len(fed)
        await asyncio.sleep(0.2)
        assert len(fed) == steps < 1000
    finally:
        hook.remove()


async def test_leaving_a_stream_stops_the_decoding(make_model: MakeModel) -> None:
    """A consumer who stops reading stops the model, and no memory is handed over."""
    with use_memory() as cell:
        stream = make_model(max_tokens=3000).astream("hello")
        await anext(stream)
        await stream.aclose()
        sync = make_model(max_tokens=3000).stream("hello")
        next(sync)
        sync.close()
    assert (cell.out, cell.report) == (None, None)
    assert (await make_model().ainvoke("hello", max_tokens=2)).text is not None
