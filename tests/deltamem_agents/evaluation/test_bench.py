"""Run the benchmark at its smallest."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from deltamem_agents.evaluation import bench


@pytest.fixture(scope="module")
def figures() -> dict[str, object]:
    """Measure once for all tests."""
    return bench.measure(bench.QUICK)


def test_every_part_is_measured(figures: dict[str, object]) -> None:
    """Each figure of the benchmarks page is there, and all of them can be written as JSON."""
    parts = {"turns", "seconds_of_each_turn", "first_token", "file_bytes", "overhead", "ratios", "start", "redaction"}
    assert set(figures) == parts | {"recall"}
    assert json.loads(json.dumps(figures)) == figures
    assert [time["turn"] for time in figures["turns"]] == list(bench.QUICK.compared)
    assert len(figures["seconds_of_each_turn"]) == bench.QUICK.turns
    assert [row["what"] for row in figures["overhead"]] == ["prefill", "decode"]
    assert figures["first_token"]["warm_tokens"] < figures["first_token"]["cold_tokens"]
    assert figures["start"]["ratio"] > 0


def test_figures_are_shown_as_tables_and_as_a_picture(figures: dict[str, object], tmp_path: Path) -> None:
    """Every table has its title, and the picture is a PNG."""
    text = io.StringIO()
    bench.print_report(figures, Console(file=text, width=140))
    for title in (
        "seconds per turn",
        "time to first token, turn 2",
        "SQLite file after 12 turns",
        "cost of the memory",
        "bench-512",
        "start",
        "redaction of secrets",
        "recall",
    ):
        assert title in text.getvalue()
    bench.save_plot(figures, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
