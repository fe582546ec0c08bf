"""Let a scripted model work on the table: what each answer says it assumes, and a subgroup that is resumed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver

from deltamem_agents import HybridMemory, open_checkpointer
from deltamem_agents.archive.writes import NewRecord
from examples.data_analyst.agent import data_agent
from examples.data_analyst.table import Table, diabetes_table

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def table() -> Table:
    """Return the bundled table."""
    return diabetes_table()


def calls(name: str, **arguments: str) -> AIMessage:
    """Return a reply that calls one tool."""
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": f"{name}-1"}])


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def thread(name: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": name}}


def sources(reply: Any) -> dict[str, str]:
    return {note["name"]: note["source"] for note in reply.response_metadata["assumptions"]}


def test_an_answer_says_what_it_assumes_and_cites_the_record(
    table: Table, memory: HybridMemory, scripted: Make, tmp_path: Path
) -> None:
    """What was said in another thread comes from a cited record; the note is on the answer and on the stream."""
    replies = ("Noted.", calls("compare", column="bmi", level="0.05"), "I compared bmi at 0.05.")
    agent = data_agent(scripted(*replies), memory, table, tmp_path, InMemorySaver())
    agent.invoke(said("We compare groups and call it significant below 0.05."), thread("monday"))
    memory.flush()
    events = list(agent.stream(said("Compare bmi between groups."), thread("friday"), stream_mode=["custom", "values"]))
    reply = events[-1][1]["messages"][-1]
    assert sources(reply) == {"significance level": "a cited record"}
    record = memory.store.records.list(memory.namespace)
    citation = reply.response_metadata["assumptions"][0]["citation"]
    assert any(one.id.endswith(citation) and "below 0.05" in one.text for one in record)
    told = [event for mode, event in events if mode == "custom"]
    where = f"[m:{citation}] of {reply.response_metadata['assumptions'][0]['said']}"
    assert told == [f"assumptions:\n  significance level 0.05 (quoted to the model from the archive, {where})"]


def test_a_unit_said_once_is_named_under_later_answers(
    table: Table, memory: HybridMemory, scripted: Make, tmp_path: Path
) -> None:
    """In another thread it comes from the archive, with its record; a reply without a tool names nothing."""
    model = scripted("Noted.", calls("compare", column="bmi", level="0.05"), "I compared bmi at 0.05.")
    agent = data_agent(model, memory, table, tmp_path, InMemorySaver())
    noted = agent.invoke(said("All measurements are in kg."), thread("monday"))["messages"][-1]
    assert sources(noted) == {}
    memory.flush()
    reply = agent.invoke(said("Compare bmi at 0.05."), thread("friday"))["messages"][-1]
    assert sources(reply)["unit"] in {"the archive", "a cited record"}
    assert next(note for note in reply.response_metadata["assumptions"] if note["name"] == "unit")["value"] == "kg"


def test_a_subgroup_holds_for_later_calls_and_is_resumed(
    table: Table, memory: HybridMemory, scripted: Make, tmp_path: Path
) -> None:
    """After filter_rows every answer is about its rows and says so, in another process too, until it is taken off."""
    database = f"sqlite:///{tmp_path / 'threads.sqlite'}"
    mean, second = (calls("aggregate", column="bp", outliers="iqr") for _ in range(2))
    with open_checkpointer(database) as saver:
        model = scripted(calls("filter_rows", group="seniors"), "I kept seniors only.")
        agent = data_agent(model, memory, table, tmp_path, saver)
        kept = agent.invoke(said("Look at seniors only."), thread("1"))["messages"]
    seniors = int((table.frame["age"] >= 65).sum())
    assert kept[-2].text == f"{seniors} rows kept"
    assert sources(kept[-1]) == {"subgroup": "this message"}
    with open_checkpointer(database) as saver:
        model = scripted(mean, "I averaged bp.", calls("filter_rows", group="all"), "All.", second, "I averaged bp.")
        agent = data_agent(model, memory, table, tmp_path, saver)
        averaged = agent.invoke(said("Average bp; for extreme values use iqr."), thread("1"))["messages"]
        agent.invoke(said("Take everyone again."), thread("1"))
        again = agent.invoke(said("Average bp."), thread("1"))["messages"]
    assert f"over {seniors} rows" in averaged[-2].text
    assert sources(averaged[-1]) == {"outlier rule": "this message", "subgroup": "the filter"}
    assert "over 442 rows" in again[-2].text
    assert sources(again[-1]) == {"outlier rule": "the prompt"}


def test_an_answer_without_assumptions_says_so(
    table: Table, memory: HybridMemory, scripted: Make, tmp_path: Path
) -> None:
    """A call that assumes nothing is followed by the word none; a reply without a call by nothing."""
    agent = data_agent(scripted(calls("profile"), "I have profiled the table.", "Hello."), memory, table, tmp_path)
    assert list(agent.stream(said("Profile the table."), stream_mode="custom")) == ["assumptions:\n  none"]
    assert list(agent.stream(said("Hello!"), stream_mode="custom")) == []


async def test_what_cannot_be_computed_reaches_the_model(
    table: Table, memory: HybridMemory, scripted: Make, tmp_path: Path
) -> None:
    """A rule that is not known is answered with those that are, also under the answer, which rests on nothing then."""
    model = scripted(calls("summarize", column="bmi", missing="magic"), "There is no such rule.")
    agent = data_agent(model, memory, table, tmp_path)
    result = await agent.ainvoke(said("Summarize bmi; treat missing values with magic."))
    assert "'magic' is no rule for missing values" in result["messages"][-2].text
    answer = result["messages"][-1]
    assert answer.text.startswith("There is no such rule.\nNot done, summarize: 'magic' is no rule for missing values")
    assert sources(answer) == {}


async def test_a_value_that_nobody_stated_is_asked_for_again_with_what_was_stated(
    table: Table, memory: HybridMemory, scripted: Make, tmp_path: Path
) -> None:
    """The working memory mixed a subgroup up: the second call is written from the record, and cites it."""
    replies = [calls("filter_rows", group="nurses"), calls("filter_rows", group="seniors"), "I kept seniors only."]
    for invoke in ("invoke", "ainvoke"):
        memory.store.records.add(memory.namespace, NewRecord("Restrict the analysis to seniors.", source="user"))
        agent = data_agent(scripted(*replies), memory, table, tmp_path)
        result = getattr(agent, invoke)(said("Filter the table."))
        messages = (await result if invoke == "ainvoke" else result)["messages"]
        assert [message.tool_calls[0]["args"] for message in messages if getattr(message, "tool_calls", None)] == [
            {"group": "seniors"}
        ]
        assert sources(messages[-1]) == {"subgroup": "a cited record"}


def test_what_is_not_stated_for_the_table_is_refused_and_told(
    table: Table, memory: HybridMemory, scripted: Make, tmp_path: Path
) -> None:
    """A subgroup that the table does not have is not replaced by another one; the answer says that nothing was done."""
    memory.store.records.add(memory.namespace, NewRecord("Restrict the analysis to seniors.", source="user"))
    agent = data_agent(scripted(calls("filter_rows", group="nurses"), "I kept nurses only."), memory, table, tmp_path)
    result = agent.invoke(said("Look at nurses only."))
    assert result["messages"][-1].text == (
        "I kept nurses only.\nNot done, filter_rows: the table cannot tell who 'nurses' are; "
        "it knows adults, seniors, teenagers"
    )
    assert result.get("subgroup") is None


def test_a_rule_is_named_without_the_space_that_a_model_puts_before_it(
    table: Table, memory: HybridMemory, scripted: Make, tmp_path: Path
) -> None:
    """As it is applied, so it is printed."""
    model = scripted(calls("summarize", column="bmi", missing=" median"), "I summarized bmi.")
    result = data_agent(model, memory, table, tmp_path).invoke(said("Summarize bmi."))
    assert result["messages"][-2].text.endswith("missing 0 (median)")


def test_an_answer_about_all_rows_says_so_where_a_subgroup_was_stated(
    table: Table, memory: HybridMemory, scripted: Make, tmp_path: Path
) -> None:
    """As long as no filter of the thread has chosen one."""
    agent = data_agent(scripted(calls("profile"), "I have profiled the table."), memory, table, tmp_path)
    memory.store.records.add(memory.namespace, NewRecord("Restrict the analysis to seniors.", source="user"))
    memory.store.records.add(memory.namespace, NewRecord("What about adults only?", source="user"))
    [note] = agent.invoke(said("Profile the table."))["messages"][-1].response_metadata["assumptions"]
    assert (note["name"], note["value"], note["source"]) == ("subgroup", "all rows, not seniors", "no filter")
    assert note["citation"]


def test_a_plot_is_saved_in_the_folder(table: Table, memory: HybridMemory, scripted: Make, tmp_path: Path) -> None:
    """The tool answers with the PNG's path."""
    model = scripted(calls("plot", column="bmi", kind="histogram"), "I plotted bmi.")
    agent = data_agent(model, memory, table, tmp_path / "plots")
    result = agent.invoke(said("Plot the bmi column as a histogram."))
    assert Path(result["messages"][-2].text).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("call", "picture_folder"),
    [(calls("plot", column="bmi", kind="line"), "plots"), (calls("aggregate", column="bmi", outliers="iqr"), ".")],
)
def test_what_a_library_refuses_reaches_the_model(
    memory: HybridMemory, scripted: Make, tmp_path: Path, call: AIMessage, picture_folder: str
) -> None:
    """An error of pandas, matplotlib or the disk is the tool's answer, and does not end the talk."""
    (tmp_path / "plots").write_text("a file where the folder should be", encoding="utf-8")
    table = Table("t", pd.DataFrame({"bmi": [True, False, True]}), None)  # the rule iqr cannot subtract truths
    agent = data_agent(scripted(call, "It failed."), memory, table, tmp_path / picture_folder)
    result = agent.invoke(said("Do it."))
    assert result["messages"][-2].text.startswith("this cannot be computed: ")
