"""Give the agent its six tools on one table; what cannot be computed is an answer that the model can read."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NotRequired

from langchain.agents import AgentState
from langchain.agents.middleware.types import PrivateStateAttr
from langchain.tools import ToolRuntime
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, tool
from langgraph.types import Command

from .measures import average, comparison, overview, summary
from .plots import save_plot
from .table import Table, TableError

__all__ = ["AnalystState", "table_tools"]


class AnalystState(AgentState[Any]):
    """Hold, beside the messages, the subgroup that filter_rows has chosen: in the thread, so that it is resumed too."""

    subgroup: NotRequired[Annotated[str | None, PrivateStateAttr]]


def table_tools(table: Table, folder: Path) -> list[BaseTool]:
    """Return the tools that work on `table`; pictures go to `folder`.

    Names, arguments and descriptions are those that the bundled model was trained with.
    """

    @tool
    def profile(runtime: ToolRuntime) -> str:
        """Describe the table."""
        return _answer(lambda: overview(_rows(table, runtime)))

    @tool
    def summarize(column: str, missing: str, runtime: ToolRuntime) -> str:
        """Summarize a column."""
        return _answer(lambda: summary(_rows(table, runtime), column, missing.strip()))

    @tool
    def plot(column: str, kind: str, runtime: ToolRuntime) -> str:
        """Plot a column."""
        chosen = _rows(table, runtime)
        values = chosen.frame[chosen.column(column)]
        return _answer(lambda: str(save_plot(values, kind, folder, rows=_group(runtime) or "all")))

    @tool
    def compare(column: str, level: str, runtime: ToolRuntime) -> str:
        """Compare a column between the groups."""
        return _answer(lambda: comparison(_rows(table, runtime), column, level))

    @tool
    def aggregate(column: str, outliers: str, runtime: ToolRuntime) -> str:
        """Average a column."""
        return _answer(lambda: average(_rows(table, runtime), column, outliers.strip()))

    @tool
    def filter_rows(group: str, runtime: ToolRuntime) -> Command[Any]:
        """Keep the rows of one group."""
        kept = table.only(group)
        said = ToolMessage(f"{len(kept.frame)} rows kept", tool_call_id=str(runtime.tool_call_id), name="filter_rows")
        return Command(update={"subgroup": None if kept is table else group.strip(), "messages": [said]})

    tools: list[BaseTool] = [profile, summarize, plot, compare, aggregate, filter_rows]
    for one in tools:
        one.handle_tool_error = True  # a TableError's text becomes the tool's answer
    return tools


def _answer(work: Callable[[], str]) -> str:
    """Compute an answer; what pandas, matplotlib or the disk refuse becomes a TableError."""
    try:
        return work()
    except (ArithmeticError, LookupError, OSError, TypeError, ValueError) as error:
        raise TableError(f"this cannot be computed: {error}") from error


def _group(runtime: ToolRuntime) -> str | None:
    group: str | None = runtime.state.get("subgroup")
    return group


def _rows(table: Table, runtime: ToolRuntime) -> Table:
    return table.only(_group(runtime))
