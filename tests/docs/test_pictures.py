"""Check that the pictures of docs/delta-mem.md can be drawn again."""

import re
from pathlib import Path

from docs.pictures import main

PAGE = Path(__file__).parents[2] / "docs" / "delta-mem.md"


def test_every_picture_of_the_page_is_drawn(tmp_path: Path) -> None:
    """The script draws what the page shows, and the page shows what is kept."""
    main(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == set(re.findall(r"\]\(pictures/([\w.]+)\)", PAGE.read_text(encoding="utf-8")))
    assert drawn == {path.name for path in (PAGE.parent / "pictures").iterdir()}
