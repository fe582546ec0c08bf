"""Read entries from lines of text."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """Hold one booking: its day, what it was for and its amount in cents."""

    day: int
    label: str
    cents: int


def parse_line(line: str) -> Entry:
    """Parse `day;label;amount`, the amount with two decimals."""
    day, label, amount = line.strip().split(";")
    units, _, fraction = amount.partition(".")
    sign = -1 if units.startswith("-") else 1
    return Entry(int(day), label, int(units) * 100 + sign * int(fraction or 0))


def parse(text: str) -> list[Entry]:
    """Parse every line that is not blank."""
    return [parse_line(line) for line in text.splitlines() if line.strip()]
