"""Run the commands of the example agents' READMEs from the root of a source tree, on the bundled model."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from examples.coding_assistant.run import sample_copy

ROOT = Path(__file__).parents[2]
ENDED = "[this call has ended well]\n"
# The model's libraries are imported once for all calls.
CALLS = f"""
import json, sys
from deltamem_agents.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
    print({ENDED!r}, end="", flush=True)
"""
SCRIPT_SHOWS = {"coding_assistant": "OK", "data_analyst": "significance level 0.05 ("}


def commands(name: str) -> list[list[str]]:
    """Return the commands of the first block of a README, without their comments."""
    block = re.search(r"```sh\n(.*?)```", (ROOT / "examples" / name / "README.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    return [shlex.split(line, comments=True) for line in block[1].splitlines()]


def deltamem(folder: Path, *calls: list[str]) -> str:
    """Run command lines, one after the other, in a process of their own; return what the last one printed."""
    command = [sys.executable, "-c", CALLS, json.dumps(calls)]
    done = subprocess.run(command, cwd=folder, input="", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.split(ENDED)
    assert len(printed) == len(calls) + 1
    return printed[-2]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPT_SHOWS)
def test_the_commands_of_a_readme_run(name: str, tmp_path: Path) -> None:
    """Each ends well, the script does what it says, and what the repository ships is not changed."""
    root = Path(shutil.copytree(ROOT / "examples", tmp_path / "clone" / "examples")).parent
    shutil.copytree(root / "examples" / "coding_assistant" / "sample_project", tmp_path / "project")
    (root / "survey.csv").write_text("age;bmi\n30;21,5\n41;24,5\n", encoding="utf-8")
    shipped = {path: path.read_bytes() for path in (root / "examples").rglob("*") if path.is_file()}
    calls = [[word.replace("~", str(tmp_path)) for word in command] for command in commands(name)]
    assert {call[0] for call in calls} == {"deltamem"}
    assert SCRIPT_SHOWS[name] in deltamem(root, *(call[1:] for call in calls))
    assert {path: path.read_bytes() for path in shipped} == shipped


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "name", "questions", "expected"),
    [
        (
            "coding",
            "coding_assistant",
            ["What was the AssertionError?", "What is in data/config.csv?", "Run the tests."],
            [
                "AssertionError: 'milk bread apple' != 'apple bread milk'",
                "tool:read_file: price\n",
                "  (data/config.csv)\n",
                '→ run_command {"command": "make test"}',
            ],
        ),
        ("data", "data_analyst", ["Average the bp column."], ['→ aggregate {"column": "bp", "outliers": "iqr"}']),
    ],
)
def test_the_next_process_knows_what_the_session_was_told(
    agent: str, name: str, questions: list[str], expected: list[str], tmp_path: Path
) -> None:
    """A convention, an assumption, an error's exact text and a file's line hold for another process."""
    deltamem(tmp_path, ["agent", agent, "--script", str(ROOT / "examples" / name / "session.txt")])
    (tmp_path / "questions.txt").write_text("\n".join(questions), encoding="utf-8")
    printed = deltamem(tmp_path, ["agent", agent, "--script", "questions.txt"])
    assert [text for text in expected if text not in printed] == []


def test_the_sample_itself_is_never_worked_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A copy is made also where the folder of the original lies, and a second run goes on with it."""
    package = Path(shutil.copytree(ROOT / "examples" / "coding_assistant", tmp_path / "coding_assistant"))
    monkeypatch.chdir(package)
    copy = sample_copy()
    assert copy.resolve() != package / "sample_project"
    (copy / "data" / "config.csv").write_text("name", encoding="utf-8")
    assert (sample_copy() / "data" / "config.csv").read_text("utf-8") == "name"
    assert (package / "sample_project" / "data" / "config.csv").read_text("utf-8") == "price\n"
