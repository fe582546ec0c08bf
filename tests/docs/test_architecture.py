"""Check that the architecture page names every file of the packages, and none besides."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["backbone", "deltamem_agents"])
def test_the_file_table_is_complete(package: str) -> None:
    """A newcomer finds each file of a package in its table, once."""
    section = PAGE.partition(f"## {package}, file by file")[2].partition("\n## ")[0]
    named = [name for row in section.splitlines() for name in re.findall(r"`([\w/]+\.py)`", row.rpartition(" | ")[0])]
    files = {str(path.relative_to(ROOT / package)) for path in (ROOT / package).rglob("*.py")}
    assert sorted(named) == sorted(name for name in files if not name.endswith("__init__.py"))
