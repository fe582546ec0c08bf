"""Check that the pictures of docs/delta-mem.md can be drawn again."""

import re
from pathlib import Path

from docs.pictures import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "delta-mem.md"
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)[^)]*\)|<img[^>]* src=\"([^\"]+)\"")


def images(page: Path) -> list[str]:
    return ["".join(found) for found in IMAGE.findall(page.read_text(encoding="utf-8"))]


def test_every_picture_of_the_page_is_drawn(tmp_path: Path) -> None:
    """The script draws what the page shows, and the page shows what is kept."""
    main(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == set(re.findall(r"\]\(pictures/([\w.]+)\)", PAGE.read_text(encoding="utf-8")))
    assert drawn == {path.name for path in (PAGE.parent / "pictures").iterdir()}


def test_every_picture_that_a_page_names_is_there() -> None:
    """The site is built without a word where a picture is missing."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*/README.md")]
    named = [(page, name) for page in pages for name in images(page)]
    assert len(named) >= 5
    missing = [f"{page}: {name}" for page, name in named if "://" not in name and not (page.parent / name).is_file()]
    assert missing == []
