"""Add up entries."""

from collections import defaultdict

from app.parser import Entry


def balance(entries: list[Entry]) -> int:
    """Return the sum of all amounts in cents."""
    return sum(entry.cents for entry in entries)


def by_label(entries: list[Entry]) -> dict[str, int]:
    """Return the sum per label in cents, labels in order of first use."""
    sums: dict[str, int] = defaultdict(int)
    for entry in entries:
        sums[entry.label] += entry.cents
    return dict(sums)


def largest(entries: list[Entry]) -> Entry:
    """Return the entry with the largest absolute amount; the earlier one on a tie."""
    return max(entries, key=lambda entry: abs(entry.cents))
