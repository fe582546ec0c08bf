"""Give the agent its five tools; a refusal is an answer that the model can read, not an error."""

from collections.abc import Callable

from langchain.tools import ToolRuntime
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, tool

from deltamem_agents import HybridMemory

from .workspace import RefusedError, Workspace

__all__ = ["workspace_tools"]


def workspace_tools(workspace: Workspace, memory: HybridMemory) -> list[BaseTool]:
    """Return the tools that work on `workspace`.

    What a command prints is archived in `memory` as it is, also where the model is shown only its end. Names, arguments
    and descriptions are those that the bundled model was trained with.
    """

    @tool
    def list_files(folder: str) -> str:
        """List the files of a folder."""
        return _answer(lambda: workspace.list(folder))

    @tool
    def search_files(text: str) -> str:
        """Search the files for a text."""
        return _answer(lambda: workspace.search(text))

    @tool
    def read_file(path: str) -> str:
        """Read a file of the project."""
        # The path is archived behind the text, so that a question that names the file finds what was in it.
        return _answer(lambda: f"{workspace.read(path)}\n({path})")

    @tool
    def write_file(path: str, content: str) -> str:
        """Write a file of the project."""
        return _answer(lambda: workspace.write(path, content))

    @tool(response_format="content_and_artifact")
    def run_command(command: str, runtime: ToolRuntime) -> tuple[str, str]:
        """Run a command in the project."""
        output = _answer(lambda: workspace.run(command))
        shown = workspace.shown(output)
        if shown != output:
            _archive(output, memory, runtime)
        return shown, output

    return [run_command, read_file, list_files, search_files, write_file]


def _answer(work: Callable[[], str]) -> str:
    try:
        return work()
    except (RefusedError, OSError) as error:
        return f"refused: {error}"


def _archive(output: str, memory: HybridMemory, runtime: ToolRuntime) -> None:
    call = str(runtime.tool_call_id)
    message = ToolMessage(output, tool_call_id=call, name="run_command", id=f"{call}-output")
    memory.archive([message], runtime.config.get("configurable", {}).get("thread_id"))
