"""Give the agent its five tools; a refusal is an answer that the model can read, not an error."""

from collections.abc import Callable

from langchain_core.tools import BaseTool, tool

from .workspace import RefusedError, Workspace

__all__ = ["workspace_tools"]


def workspace_tools(workspace: Workspace) -> list[BaseTool]:
    """Return the tools that work on `workspace`.

    Names, arguments and descriptions are those that the bundled model was trained with.
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
        return _answer(lambda: workspace.read(path))

    @tool
    def write_file(path: str, content: str) -> str:
        """Write a file of the project."""
        return _answer(lambda: workspace.write(path, content))

    @tool
    def run_command(command: str) -> str:
        """Run a command in the project."""
        return _answer(lambda: workspace.run(command))

    return [run_command, read_file, list_files, search_files, write_file]


def _answer(work: Callable[[], str]) -> str:
    try:
        return work()
    except (RefusedError, OSError) as error:
        return f"refused: {error}"
