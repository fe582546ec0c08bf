"""Check that the demo's tools do what they say and nothing else."""

from pathlib import Path

import pytest

from examples.demo.tools import ALLOWED, project_tools

PROJECT = Path(__file__).parents[2] / "examples" / "demo" / "sample_project"


def call(name: str, root: Path = PROJECT, **arguments: str) -> str:
    tools = {tool.name: tool for tool in project_tools(root)}
    return str(tools[name].invoke(arguments))


@pytest.mark.parametrize("command", [command for command in ALLOWED if "ruff" not in command])
def test_every_allowed_test_command_passes(command: str) -> None:
    """Each test command really runs the sample project's tests, so that only memory can tell which one was meant."""
    result = call("run_command", command=command)
    assert "6 passed" in result or "Ran 6 tests" in result
    assert "exit code" not in result


@pytest.mark.parametrize("command", ["python -c 'print(1)'", "make test; ls", "make clean", "", "rm -rf ."])
def test_other_commands_are_refused(command: str) -> None:
    """A command that is not listed word for word does not run."""
    assert call("run_command", command=command).startswith("refused:")


def test_failing_command_reports_its_status(tmp_path: Path) -> None:
    """The exit status reaches the model when a command fails."""
    assert call("run_command", tmp_path, command="make test").startswith("exit code 2\n")


def test_read_file_returns_the_text() -> None:
    """A file of the project comes back as it is."""
    assert call("read_file", path="app/parser.py") == (PROJECT / "app" / "parser.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ["../tools.py", "/etc/hostname", "app/../../tools.py"])
def test_read_file_stays_in_the_project(path: str) -> None:
    """A path that leads out of the project is refused."""
    assert call("read_file", path=path).startswith("refused:")


def test_read_file_names_a_missing_file() -> None:
    """A file that is not there is named."""
    assert call("read_file", path="app/none.py") == "no such file: app/none.py"
