"""Run the benchmark at its smallest."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from deltamem_agents.cli import main
from deltamem_agents.evaluation import bench
from deltamem_agents.evaluation.bench_plot import save_plot
from deltamem_agents.evaluation.bench_report import print_report


@pytest.fixture(scope="module")
def figures() -> dict[str, object]:
    """Measure once for all tests."""
    return bench.measure(bench.QUICK)


def test_every_part_is_measured(figures: dict[str, object]) -> None:
    """Each figure of the benchmarks page is there, and all of them can be written as JSON."""
    parts = {"turns", "seconds_of_each_turn", "first_token", "file_bytes", "overhead", "ratios", "start", "redaction"}
    assert set(figures) == parts | {"archive", "recall"}
    assert json.loads(json.dumps(figures)) == figures
    assert [time["turn"] for time in figures["turns"]] == list(bench.QUICK.compared)
    assert len(figures["seconds_of_each_turn"]) == bench.QUICK.turns
    assert [row["what"] for row in figures["overhead"]] == ["prefill", "decode"]
    assert figures["first_token"]["warm_tokens"] < figures["first_token"]["cold_tokens"]
    assert figures["start"]["ratio"] > 0
    assert [row["records"] for row in figures["archive"]] == list(bench.QUICK.archive)
    assert all(value > 0 for row in figures["archive"] for value in row.values())


def test_figures_are_shown_as_tables_and_as_a_picture(figures: dict[str, object], tmp_path: Path) -> None:
    """Every table has its title, and the picture is a PNG."""
    text = io.StringIO()
    print_report(figures, Console(file=text, width=140))
    for title in (
        "seconds per turn",
        "time to first token, turn 2",
        "SQLite file after 12 turns",
        "cost of the memory",
        "bench-512",
        "start",
        "redaction of secrets",
        "archive, 95th percentiles",
        "recall",
    ):
        assert title in text.getvalue()
    save_plot(figures, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_one_part_can_be_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`deltamem bench start` measures what `make bench` does of it, and draws no picture; a wrong part is one line."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["deltamem", "bench", "--quick", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    monkeypatch.chdir(tmp_path)
    status, out, _ = run("start", "--json")
    assert status == 0
    assert set(json.loads(out)) == {"start"}
    assert "deltamem --help, s" in run("start")[1]
    for arguments, named in ((["stop"], "no parts stop"), (["start", "--plot", "x.png"], "turns and ratios")):
        status, out, err = run(*arguments)
        assert (status, out) == (1, "")
        assert named in err
    assert list(tmp_path.iterdir()) == []
