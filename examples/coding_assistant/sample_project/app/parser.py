"""Read items from lines of text."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """Hold one item: its name and its price in cents."""

    name: str
    price: int


def parse(text: str) -> list[Item]:
    """Parse `name price` on every line that is not blank."""
    pairs = (line.split() for line in text.splitlines() if line.strip())
    return [Item(name, round(float(price) * 100)) for name, price in pairs]
