"""Check that the README's figures are those of the benchmarks page, which has all of them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")

MODES = {"MSW", "TSW", "SSW"}


def cells(line: str) -> list[str]:
    """Return what the cells of a table's row say."""
    return [cell.strip() for cell in line.strip("| ").split("|")]


def test_rows_of_the_readme_are_rows_of_the_benchmarks() -> None:
    """What the README says about cost stands in the table of costs."""
    costs = README.partition("## What it costs")[2].partition("\n## ")[0]
    rows = [line for line in costs.splitlines() if re.match(r"\|.*\d", line)]
    assert len(rows) >= 5
    assert [row for row in rows if row not in BENCHMARKS.splitlines()] == []


def test_recall_in_the_readme_is_that_of_the_benchmarks() -> None:
    """Each row has the figure of every adapter, and the controls of the default one."""
    table = [cells(line) for line in BENCHMARKS.splitlines()]
    measured = {(row[0], row[1]): row[2:] for row in table if row[0] in MODES}
    section = README.partition("## What it remembers")[2].partition("\n## ")[0]
    rows = [cells(line) for line in section.splitlines() if re.match(r"\| \d+ facts", line)]
    assert [row[0] for row in rows] == [asked for mode, asked in measured if mode == "MSW"]
    for asked, msw, tsw, ssw, *controls in rows:
        assert [msw, *controls] == measured["MSW", asked]
        assert [tsw, ssw] == [measured[mode, asked][0] for mode in ("TSW", "SSW")]


def test_the_headline_is_the_row_of_turn_200() -> None:
    """What the README says first about cost stands in the table."""
    headline = re.search(r"(\d+\.\d+ s) against (\d+\.\d+ s)", README)
    assert headline is not None
    assert f"| at turn 200 | {headline[1]} | {headline[2]} |" in BENCHMARKS
