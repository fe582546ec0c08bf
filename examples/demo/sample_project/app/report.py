"""Turn totals into text."""

from app.metrics import balance, by_label
from app.parser import Entry


def amount(cents: int) -> str:
    """Write cents as a number with two decimals."""
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02d}"


def report(entries: list[Entry]) -> str:
    """Return one line per label and a last line with the balance."""
    lines = [f"{label:<12}{amount(cents):>10}" for label, cents in by_label(entries).items()]
    return "\n".join([*lines, f"{'balance':<12}{amount(balance(entries)):>10}"])
