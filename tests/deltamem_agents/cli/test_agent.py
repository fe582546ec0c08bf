"""Check that `deltamem agent` finds the examples, in a source tree and in a wheel, and says what is missing."""

import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backbone import ConfigError
from deltamem_agents.cli.agent import agents
from deltamem_agents.cli.app import app

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
        for option in ("--model", "--adapter", "--db", "--script", "--thread"):
            assert option in shown


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas the data analyst says what to install."""
    for loaded in [module for module in sys.modules if module.startswith("deltamem_agents.agents.data_analyst")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, "pandas", None)
    result = CliRunner().invoke(agents, ["data"])
    assert isinstance(result.exception, ConfigError)
    assert "pip install 'deltamem-agents[data]'" in str(result.exception)


def test_a_file_that_is_no_table_is_one_error(tmp_path: Path) -> None:
    """What --csv cannot read is said before a model is loaded."""
    (tmp_path / "bad.csv").write_text("", encoding="utf-8")
    result = CliRunner().invoke(agents, ["data", "--csv", str(tmp_path / "bad.csv")])
    assert isinstance(result.exception, ConfigError)
    assert "is not a CSV file that can be read" in str(result.exception)
