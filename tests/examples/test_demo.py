"""Run the whole demo, as `make demo` does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from deltamem_agents import WorkingMemory, open_checkpointer
from deltamem_agents.messages import to_entries
from examples.demo.script import FACTS, OTHER_VALUES, RUN_REQUEST, mentions, unrelated_work

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
def test_the_first_process_worked_until_no_convention_was_in_its_prompt(folder: Path) -> None:
    """The checkpoint holds at least 1,500 tokens of unrelated work, and no convention among what is not absorbed."""
    with open_checkpointer(f"sqlite:///{folder}/threads.sqlite") as saver:
        found = saver.get_tuple({"configurable": {"thread_id": "main"}})
    assert found is not None
    values = found.checkpoint["channel_values"]
    messages = values["messages"]
    end = next(at for at, message in enumerate(messages) if message.text == RUN_REQUEST)
    work = messages[2 * len(FACTS) : end]
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "backbone" / "tiny" / "model")
    assert sum(len(tokenizer(message.text).input_ids) for message in work) >= 1_500
    told = messages[: 2 * len(FACTS)]
    assert all(mentions(message.text, fact.value) for message, fact in zip(told[::2], FACTS, strict=True))
    assert [fact for fact in FACTS for message in work if mentions(message.text, fact.value)] == []
    absorbed = set(WorkingMemory.from_bytes(values["delta_mem"]).digests)
    assert {entry.digest for entry in to_entries(told)} <= absorbed
    output = " ".join((folder / "output.txt").read_text(encoding="utf-8").split())
    assert "Conventions whose value is in the prompt: none" in output


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
