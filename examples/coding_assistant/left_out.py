"""Keep account of what a search has left out, so that nothing found is not taken for nothing there."""

from collections import defaultdict

__all__ = ["LeftOut"]

_NAMED = 3


class LeftOut:
    """Gather names by the reason why they were not searched; as text, how many there are and the first of them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._names: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, why: str, name: object) -> None:
        """Take a name that was left out."""
        self._names[why].append(str(name))

    def __str__(self) -> str:
        told = [f"{len(names)} {why} ({_some(names)})" for why, names in self._names.items()]
        return f"not searched: {'; '.join(told)}" if told else ""


def _some(names: list[str]) -> str:
    return ", ".join([*names[:_NAMED], *(["…"] if len(names) > _NAMED else [])])
