"""Measure recall from the command line."""

import json
import sys

import pytest

from deltamem_agents.cli import main

SMALL = ["--facts", "2", "--distance", "120", "--threads", "2"]
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


def test_more_facts_than_there_are_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be measured is refused with one line and status 1."""
    assert run(monkeypatch, "--facts", "99", "--threads", "2") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
