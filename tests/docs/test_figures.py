"""Check that the README's figures are those of the benchmarks page, which has all of them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_rows_of_the_readme_are_rows_of_the_benchmarks() -> None:
    """Both tables of the README are shorter, not others; its recall is that of the default adapter, MSW."""
    sections = README.partition("## What it remembers")[2].partition("## What it cannot do")[0]
    rows = [line for line in sections.splitlines() if re.match(r"\|.*\d", line)]
    known = BENCHMARKS.replace("| MSW | ", "| ").splitlines()
    assert len(rows) >= 8
    assert [row for row in rows if row not in known] == []


def test_the_headline_is_the_row_of_turn_200() -> None:
    """What the README says first about cost stands in the table."""
    headline = re.search(r"(\d+\.\d+ s) against (\d+\.\d+ s)", README)
    assert headline is not None
    assert f"| at turn 200 | {headline[1]} | {headline[2]} |" in BENCHMARKS
