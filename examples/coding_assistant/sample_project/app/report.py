"""Turn items into text, in the order that data/config.csv names."""

from pathlib import Path

from app.parser import Item

CONFIG = Path(__file__).parents[1] / "data" / "config.csv"


def report(items: list[Item]) -> str:
    """Return the names of all items, ordered by the field that the configuration names."""
    field = CONFIG.read_text(encoding="utf-8").strip()
    return " ".join(item.name for item in sorted(items, key=lambda item: getattr(item, field)))
