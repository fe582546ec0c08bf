"""Hold what is said in the demo: six conventions, and work that has nothing to do with them."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["FACTS", "OTHER_VALUES", "RUN_REQUEST", "Fact", "mentions", "unrelated_work"]


@dataclass(frozen=True)
class Fact:
    """Hold one convention: its name, its value, how it is told and how it is asked for."""

    name: str
    value: str
    statement: str
    question: str

    def told(self, value: str | None = None) -> str:
        """Return the sentence that states this convention, with its own or another value."""
        return self.statement.format(value=self.value if value is None else value)


FACTS = (
    Fact("test command", "make test", "We run the tests with {value}.", "How do we run the tests?"),
    Fact("lint command", "ruff check", "We lint with {value}.", "What is the lint command?"),
    Fact("package manager", "poetry", "Dependencies are managed by {value}.", "Which package manager do we use?"),
    Fact("line length", "104", "Lines may have at most {value} characters.", "What is the line length?"),
    Fact("main branch", "trunk", "Pull requests go to {value}.", "Where do pull requests go?"),
    Fact("reviewer", "Heidi", "Ask {value} for a review.", "Who reviews the changes?"),
)
RUN_REQUEST = "Run the tests."
OTHER_VALUES = ("pytest -q", "flake8 src", "conda", "88", "staging", "Oscar")
"""What the other thread is told, in the order of FACTS."""

_FILES = ("app/parser.py", "app/metrics.py", "app/report.py")
_MODULES = ("cache", "router", "loader", "session", "billing", "search", "mailer", "worker")
_EVENTS = ("request took {n} ms", "loaded {n} rows", "wrote {n} bytes", "job {n} finished", "sent {n} events")
_COLUMNS = ("price", "score", "weight", "sales", "profit", "cost", "demand", "clicks")


def mentions(text: str, value: str) -> bool:
    """Tell whether `value` stands in `text` as whole words, upper or lower case."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE) is not None


def unrelated_work(seed: int) -> Iterator[str]:
    """Yield requests without end: files of the sample project to read, logs and tables to look at."""
    rng = random.Random(seed)  # noqa: S311 - a script, not a secret
    files = iter(_FILES)
    while True:
        yield f"Check this:\n{_log(rng)}"
        yield f"Please read:\n{_table(rng)}"
        if (path := next(files, None)) is not None:
            yield f"Read {path}."


def _log(rng: random.Random) -> str:
    lines = []
    for _ in range(6):
        clock = f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"
        lines.append(f"{clock} INFO {rng.choice(_MODULES)}: {rng.choice(_EVENTS).format(n=_number(rng))}")
    return "\n".join(lines)


def _table(rng: random.Random) -> str:
    rows = [" | ".join(str(_number(rng)) for _ in range(3)) for _ in range(5)]
    return "\n".join([" | ".join(rng.sample(_COLUMNS, 3)), *rows])


def _number(rng: random.Random) -> int:
    """Return a number that is no value of a convention, so that the check of the prompt cannot be fooled."""
    return rng.randrange(200, 1000)
