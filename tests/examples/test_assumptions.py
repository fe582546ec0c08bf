"""Check what the data analyst says about where an assumption came from."""

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from deltamem_agents import HybridMemory
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.messages import UNWRITTEN
from deltamem_agents.recalled import CLOSING, OPENING
from examples.data_analyst.assumptions import Prompt, as_lines, stated_unit, trace
from examples.data_analyst.statements import ASSUMED

REQUEST = HumanMessage("Compare bmi between the groups.")


def call(**arguments: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "compare", "args": arguments, "id": "1"}])


def block(passages: str) -> SystemMessage:
    return SystemMessage(f"{OPENING}{passages}{CLOSING}", additional_kwargs={UNWRITTEN: True})


def source(memory: HybridMemory, *messages: BaseMessage, text: str | None = None, argument: str = "level") -> str:
    value = {"level": "0.05", "missing": "mean"}[argument]
    return trace(argument, value, Prompt(messages, text), memory).source


def test_the_first_place_that_states_it_is_named(memory: HybridMemory) -> None:
    """This message comes before the prompt, the prompt before the archive's passage, that before earlier calls."""
    told = HumanMessage("The significance level is 0.05.")
    recalled = block("[m:12ab] 2026-03-02 user: We call it significant below 0.05.\n")
    asked = HumanMessage("Compare bmi at 0.05.")
    assert source(memory, told, recalled, asked) == "this message"
    assert source(memory, told, recalled, REQUEST) == "the prompt"
    assert source(memory, recalled, call(level="0.05"), REQUEST) == "a cited record"
    assert source(memory, call(level="0.05"), REQUEST) == "an earlier call"
    assert source(memory, call(level="0.1"), REQUEST) == "unknown"
    cited = trace("level", "0.05", Prompt([recalled, REQUEST], None), memory)
    assert str(cited) == "significance level 0.05 (quoted to the model from the archive, [m:12ab] of 2026-03-02)"


def test_what_has_left_the_prompt_does_not_count_as_prompt(memory: HybridMemory) -> None:
    """A graph's state may hold what the model no longer saw."""
    told = HumanMessage("The significance level is 0.05.")
    seen = "…Compare bmi between the groups.…"
    assert source(memory, told, call(level="0.05"), REQUEST, text=seen) == "unknown"
    assert source(memory, told, REQUEST, text=told.text + seen) == "the prompt"
    assert (
        source(memory, call(level="0.05"), REQUEST, text=seen + '{"column": "age", "level": "0.05"}')
        == "an earlier call"
    )


def test_working_memory_is_named_with_the_newest_record_that_states_it(memory: HybridMemory) -> None:
    """Nothing in the prompt states the value, and the archive proves that it was said."""
    said = ["Test hypotheses at 0.05.", "We call it significant below 0.05.", "The significance level is now 0.1."]
    records = memory.store.records.add_all(memory.namespace, [NewRecord(text, source="user") for text in said])
    found = trace("level", "0.05", Prompt([REQUEST], None), memory)
    assert found.source == "working memory"
    assert found.citation in {record.id[-8:] for record in records[:2]}
    assert found.said == f"{records[0].created:%Y-%m-%d}"


@pytest.mark.parametrize(
    ("text", "source_of"),
    [
        ("Is 0.05 a good significance level?", "user"),
        ("It took 0.05 seconds.", "user"),
        ("The significance level is 0.055.", "user"),
        ("The significance level is 10.05.", "user"),
        ("The significance level is 0.05.", "tool:search"),
        ("The significance level is 0.05.", "agent"),
    ],
)
def test_only_a_statement_of_the_users_proves_it(memory: HybridMemory, text: str, source_of: str) -> None:
    """A question, another meaning, a longer number, a tool's words and the agent's own prove nothing."""
    memory.store.records.add(memory.namespace, NewRecord(text, source=source_of))
    assert source(memory, REQUEST) == "unknown"


def test_quarantined_records_prove_nothing(memory: HybridMemory) -> None:
    """What must not be found is not cited either."""
    memory.store.records.add(
        memory.namespace, NewRecord("The significance level is 0.05.", source="user", tags=("quarantined",))
    )
    assert source(memory, REQUEST) == "unknown"


def test_a_word_in_a_tools_output_is_no_statement(memory: HybridMemory) -> None:
    """Means are printed all the time; that is not where the rule for missing values comes from."""
    output = ToolMessage("mean 26.4\nmissing 0", tool_call_id="1")
    assert source(memory, output, HumanMessage("Summarize bmi."), argument="missing") == "unknown"


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("All amounts are in euro.", "euro"),
        ("Report amounts in yen, please.", "yen"),
        ("Money is shown in pound.", "pound"),
        ("The unit is mmHg.", "mmHg"),
        ("The currency is euro. No, the currency is krona.", "krona"),
        ("Our measurements are given in kg.", "kg"),
        ("In what are the amounts?", None),
        ("Are all amounts in euro?", None),
        ("Treat missing values in age with median.", None),
        ("Most patients are in the first group.", None),
        ("The unit of bp is mmHg.", None),
    ],
)
def test_a_unit_is_what_a_statement_says_numbers_are_in(memory: HybridMemory, text: str, unit: str | None) -> None:
    """A question states none, and not everything that is in something is a unit."""
    found = stated_unit(Prompt([HumanMessage(text)], None), memory)
    assert (found and found.value) == unit


def test_the_unit_comes_from_the_prompt_or_from_a_record(memory: HybridMemory) -> None:
    """The newest statement of a person in the prompt, else the passage shown to the model, else the archive."""
    told, recalled = HumanMessage("All amounts are in euro."), block("[m:12ab] 2026-03-02 user: Amounts are in yen.\n")
    assert stated_unit(Prompt([REQUEST], None), memory) is None
    record = memory.store.records.add(memory.namespace, NewRecord("Money is shown in pound.", source="user"))
    memory.store.records.add(memory.namespace, NewRecord("Money is shown in won.", source="tool:search"))
    assert str(stated_unit(Prompt([told, recalled, REQUEST], None), memory)).startswith("unit euro (said earlier")
    assert str(stated_unit(Prompt([told, recalled, REQUEST], "…"), memory)).endswith(", [m:12ab] of 2026-03-02)")
    found = stated_unit(Prompt([REQUEST], None), memory)
    assert found is not None
    assert (found.value, found.source, found.citation) == ("pound", "the archive", record.id[-8:])


def test_lines_for_people(memory: HybridMemory) -> None:
    """Each assumption is a line, and none is said as well."""
    note = trace("level", "0.05", Prompt([REQUEST], None), memory).as_data()
    assert as_lines([note]) == "  significance level 0.05 (nothing you said states it; the model may have made it up)"
    assert as_lines([]) == "  none"
    assert {assumed.name for assumed in ASSUMED.values()} >= {"missing value rule", "subgroup"}
