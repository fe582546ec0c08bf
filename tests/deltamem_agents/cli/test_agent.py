"""Check that `deltamem agent` finds the examples, in a source tree and in a wheel, and says what is missing."""

import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from backbone import ConfigError
from deltamem_agents.cli.agent import agents
from deltamem_agents.cli.app import app
from deltamem_agents.cli.talk import thread_of

ROOT = Path(__file__).parents[3]
EXAMPLES = ("coding_assistant", "data_analyst")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_one_source(name: str) -> None:
    """In a source tree the command runs the files of examples/, and a wheel gets them where the command looks."""
    module = import_module(f"deltamem_agents.agents.{name}")
    assert Path(module.__file__).parent == ROOT / "examples" / name
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert wheel["force-include"][f"examples/{name}"] == f"deltamem_agents/agents/{name}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_copied_example_needs_nothing_else_of_this_repository(name: str) -> None:
    """Inside, imports are relative; outside, they name installed packages."""
    for path in (ROOT / "examples" / name).glob("*.py"):
        assert "examples." not in path.read_text(encoding="utf-8").replace("-m examples.", "")


def test_every_option_is_explained() -> None:
    """The help of both commands has an example, and names model, database and script."""
    for command in ("coding", "data"):
        shown = CliRunner().invoke(app, ["agent", command, "--help"], env={"COLUMNS": "200"}).output
        assert f"Example: deltamem agent {command}" in shown
        for option in ("--model", "--adapter", "--device", "--db", "--script", "--thread", "--json"):
            assert option in shown


@pytest.mark.parametrize(("command", "name"), [("coding", EXAMPLES[0]), ("data", EXAMPLES[1])])
def test_a_folder_runs_with_the_options_of_the_command(command: str, name: str) -> None:
    """`python -m` of an example takes what `deltamem agent` takes, with the same explanations."""
    folder = typer.Typer()
    folder.command()(import_module(f"examples.{name}.__main__").main)
    ours, theirs = typer.main.get_command(app).commands["agent"].commands[command], typer.main.get_command(folder)
    assert [
        (p.name, p.opts, p.help) for p in theirs.params if p.name not in {"install_completion", "show_completion"}
    ] == [(p.name, p.opts, p.help) for p in ours.params]


def test_namesakes_have_threads_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders of one name do not share a thread; one folder has one, however it is named."""
    for folder in ("a/app", "b/app"):
        (tmp_path / folder).mkdir(parents=True)
    first, second = (thread_of("coding", tmp_path / folder) for folder in ("a/app", "b/app"))
    assert first != second
    assert first.startswith("coding-app-")
    monkeypatch.chdir(tmp_path / "a")
    assert thread_of("coding", Path("app")) == first


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas the data analyst says what to install."""
    for loaded in [module for module in sys.modules if module.startswith("deltamem_agents.agents.data_analyst")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, "pandas", None)
    result = CliRunner().invoke(agents, ["data"])
    assert isinstance(result.exception, ConfigError)
    assert 'pip install ".[data]"' in str(result.exception)


def test_a_file_that_is_no_table_is_one_error(tmp_path: Path) -> None:
    """What --csv cannot read is said before a model is loaded."""
    (tmp_path / "bad.csv").write_text("", encoding="utf-8")
    result = CliRunner().invoke(agents, ["data", "--csv", str(tmp_path / "bad.csv")])
    assert isinstance(result.exception, ConfigError)
    assert "is not a CSV file that can be read" in str(result.exception)
