"""Check that `deltamem agent` finds the examples, in a source tree and in a wheel, and says what is missing."""

import os
import shutil
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from backbone import ConfigError
from deltamem_agents.cli.agent import agents
from deltamem_agents.cli.app import app
from deltamem_agents.cli.talk import thread_of
from deltamem_agents.settings import Settings

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


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Work in an empty folder, without settings from outside, and return a script that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("CONFIG", *map(str.upper, Settings.model_fields)):
        monkeypatch.delenv(f"DELTAMEM_{name}", raising=False)
    Path("script.txt").write_text("# nothing\n", encoding="utf-8")
    return "script.txt"


@pytest.mark.parametrize("command", ["coding", "data"])
def test_databases_and_index_are_those_of_flag_variable_and_file_in_this_order(
    command: str, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive, its index and the threads are made where the first of the three says, and nowhere else."""
    Path("deltamem.toml").write_text(
        'db = "sqlite:///file.sqlite"\narchive_db = "sqlite:///file-archive.sqlite"\narchive_index = "file.index"\n'
        'archive_embeddings = "minilm"\n'
    )
    flags = ["--db", "sqlite:///flag.sqlite", "--archive-db", "sqlite:///flag-archive.sqlite", "--index", "flag.index"]
    for given, name in ([], "file"), ([], "variable"), (flags, "flag"):
        if name == "variable":
            monkeypatch.setenv("DELTAMEM_DB", "sqlite:///variable.sqlite")
            monkeypatch.setenv("DELTAMEM_ARCHIVE_DB", "sqlite:///variable-archive.sqlite")
            monkeypatch.setenv("DELTAMEM_ARCHIVE_INDEX", "variable.index")
        result = CliRunner().invoke(agents, [command, "--script", script, *given])
        assert result.exception is None, result.output
        made = {path.name for path in tmp_path.iterdir() if path.name.startswith(("file", "variable", "flag"))}
        assert {one for one in made if not one.endswith(".lock")} == {
            f"{name}.sqlite",
            f"{name}-archive.sqlite",
            f"{name}.index",
        }
        for one in made:
            path = tmp_path / one
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("command", ["coding", "data"])
def test_window_and_embeddings_are_those_of_flag_variable_and_file_in_this_order(
    command: str, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that cannot work is met only where nothing before it has one that can."""

    def error(*given: str) -> str:
        return str(CliRunner().invoke(agents, [command, "--script", script, *given]).exception)

    Path("deltamem.toml").write_text('window_tokens = 300\nkeep_tokens = 400\narchive_embeddings = "file"\n')
    assert "keep_tokens" in error()
    monkeypatch.setenv("DELTAMEM_WINDOW_TOKENS", "500")
    assert "embeddings 'file'" in error("--index", "vectors")
    monkeypatch.setenv("DELTAMEM_ARCHIVE_EMBEDDINGS", "variable")
    assert "embeddings 'variable'" in error("--index", "vectors")
    assert "embeddings 'flag'" in error("--index", "vectors", "--embeddings", "flag")
    assert "keep_tokens" in error("--window-tokens", "300")


@pytest.mark.parametrize(("command", "name"), [("coding", EXAMPLES[0]), ("data", EXAMPLES[1])])
def test_a_folder_runs_with_the_options_of_the_command(command: str, name: str) -> None:
    """`python -m` of an example takes what `deltamem agent` takes, with the same explanations."""
    folder = typer.Typer()
    folder.command()(import_module(f"examples.{name}.__main__").main)
    ours, theirs = typer.main.get_command(app).commands["agent"].commands[command], typer.main.get_command(folder)
    assert [
        (p.name, p.opts, p.help) for p in theirs.params if p.name not in {"install_completion", "show_completion"}
    ] == [(p.name, p.opts, p.help) for p in ours.params]


def test_a_person_sees_what_is_opened_and_a_pipe_does_not(script: str) -> None:
    """Where stderr is a terminal it says what takes time; where it is none nothing is written but the conversation."""
    command = [sys.executable, "-c", "from deltamem_agents.cli import main; main()", "agent", "data"]
    master, terminal = os.openpty()
    watched = subprocess.Popen(
        [*command, "--script", script], stdout=subprocess.PIPE, stderr=terminal, env=os.environ | {"TERM": "xterm"}
    )
    os.close(terminal)
    seen = b""
    with suppress(OSError):  # the end of a terminal that nobody holds any more
        while piece := os.read(master, 4096):
            seen += piece
    printed = watched.communicate()[0].decode()
    os.close(master)
    for text in ("loading the model …", "opening the archive …", "opening the threads …", "closing the archive …"):
        assert text in seen.decode()
        assert text not in printed
    piped = subprocess.run([*command, "--script", script], capture_output=True, text=True, check=True)
    assert (piped.stdout, piped.stderr) == (printed, "")


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
