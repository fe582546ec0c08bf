"""Run the whole demo, as `make demo` does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from examples.demo.script import FACTS, OTHER_VALUES, mentions, unrelated_work

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Play the demo once; it ends with 0 only if the command that ran is the one that was told."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    (folder / "output.txt").write_text(done.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def asked(folder: Path) -> dict[str, object]:
    """Return what the second process found."""
    return json.loads((folder / "ask.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_no_convention_was_in_any_prompt(asked: dict[str, object]) -> None:
    """What is answered can only come from the working memory."""
    assert [answer["fact"] for answer in asked["answers"] if answer["in prompt"]] == []
    assert not asked["run"]["in prompt"]


@pytest.mark.slow
def test_memory_answers_and_the_controls_do_not(asked: dict[str, object]) -> None:
    """No more than one of six conventions is lost; a zeroed or foreign memory gives away no more than one."""
    right = {name: sum(answer[name][1] for answer in asked["answers"]) for name in ("memory", "zeroed", "other thread")}
    assert right["memory"] >= 5
    assert right["zeroed"] <= 1
    assert right["other thread"] <= 1


@pytest.mark.slow
def test_the_tests_of_the_sample_project_really_ran(folder: Path, asked: dict[str, object]) -> None:
    """The command that was told in a process that has ended ran, and its output is shown."""
    output = (folder / "output.txt").read_text(encoding="utf-8")
    assert asked["run"]["command"] == asked["run"]["told"] == FACTS[0].value
    assert "Ran 6 tests" in output
    assert "agent I ran make test." in output
    assert output.count("process ") >= 2


@pytest.mark.slow
def test_figures_and_picture_are_there(folder: Path, asked: dict[str, object]) -> None:
    """The picture is a PNG, its path is printed, and the checkpoint holds the memory."""
    assert (folder / "memory.png").read_bytes().startswith(b"\x89PNG")
    assert "memory.png" in (folder / "output.txt").read_text(encoding="utf-8").replace("\n", "")
    assert 0 < asked["memory_bytes"] < asked["checkpoint_bytes"]


def test_the_script_gives_no_answer_away() -> None:
    """No value of either thread occurs in questions, unrelated work, or the files that are read."""
    values = [*(fact.value for fact in FACTS), *OTHER_VALUES]
    work = unrelated_work(7)
    texts = [next(work) for _ in range(60)] + [fact.question for fact in FACTS]
    texts += [
        path.read_text(encoding="utf-8") for path in (ROOT / "examples" / "demo" / "sample_project").rglob("*.py")
    ]
    assert [(value, text) for value in values for text in texts if mentions(text, value)] == []
