"""Measure recall from the command line."""

import json
import sys
from pathlib import Path

import pytest

from deltamem_agents.cli import main

SMALL = ["--facts", "2", "--distance", "120", "--threads", "2"]
MANY = ["--facts", "8", "--distance", "120", "--threads", "2"]  # too many for SSW
WIDER = ["--facts", "2", "--distance", "600", "--threads", "2"]  # for a tokenizer that needs a token a letter
KEYS = {"exact_match", "zeroed", "shuffled", "full_context", "chance", "n", "prompt_contains_fact"}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `deltamem eval recall` in this process, and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["deltamem", "eval", "recall", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.mark.parametrize("mode", ["tsw", "ssw", "msw"])
def test_json_has_every_figure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    """One JSON object on stdout, with the facts nowhere in the prompt."""
    assert run(monkeypatch, *SMALL, "--mode", mode, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() >= KEYS
    assert figures["prompt_contains_fact"] == 0
    assert figures["n"] == 4
    assert 0 <= figures["exact_match"] <= 1


def test_the_same_seed_gives_the_same_figures_and_updates_change_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The measurement is repeatable; without --json it is a table that explains each figure."""
    tables = []
    for options in ([], [], ["--updates"]):
        assert run(monkeypatch, *SMALL, "--seed", "3", *options) == 0
        tables.append(" ".join(capsys.readouterr().out.replace("│", " ").split()))
    assert tables[0] == tables[1]
    assert "another thread's memory" in tables[0]
    assert "with updates" in tables[2]


@pytest.mark.parametrize("distance", [0, 2])
def test_facts_with_nothing_behind_them_are_asked_for_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], distance: int
) -> None:
    """A distance that leaves nothing to keep is measured with the question alone in the prompt."""
    assert run(monkeypatch, "--facts", "4", "--distance", str(distance), "--threads", "2", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["n"], figures["prompt_contains_fact"]) == (8, 0)


@pytest.mark.parametrize("by_flag", [True, False])
def test_another_model_is_measured_with_its_adapter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, by_flag: bool
) -> None:
    """A model and adapter that flags or settings name are those that answer: random ones, which name no value."""
    given = {"model": str(model_folder), "adapter": str(model_folder / "states")}
    for name, value in given.items():
        monkeypatch.setenv(f"DELTAMEM_{name.upper()}", "no/where" if by_flag else value)
    flags = [word for name, value in given.items() for word in (f"--{name}", value)] if by_flag else []
    assert run(monkeypatch, *WIDER, *flags, "--device", "cpu", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() >= KEYS
    assert figures["n"] == 4
    assert figures["exact_match"] == figures["full_context"] == 0
    assert figures["never_told"] == 1  # the bundled model's own words for it would not come out of random weights
    assert figures["prompt_contains_fact"] == 0


def test_an_adapter_of_the_bundled_model_can_be_given_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--adapter alone measures an adapter of the bundled model: what --mode names as well."""
    found = []
    for options in (["--adapter", "ssw"], ["--mode", "ssw"], []):
        assert run(monkeypatch, *MANY, *options, "--json") == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert found[0]["exact_match"] < found[2]["exact_match"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mode", "tsw", "--model", "some/model"], "--mode"),
        (["--mode", "tsw", "--revision", "main"], "--mode"),
        (["--model", "some/model"], "needs an adapter"),
    ],
)
def test_a_model_that_cannot_be_measured_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    """A mode beside a model, and a model without an adapter, are refused."""
    assert run(monkeypatch, *SMALL, *options) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


def test_more_facts_than_there_are_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be measured is refused with one line and status 1."""
    assert run(monkeypatch, "--facts", "99", "--threads", "2") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
