"""An engine whose jobs need no model, and a job that never ends."""

import threading
import time
from collections.abc import Generator, Iterator
from typing import cast

import pytest

from backbone import Backbone
from backbone.engine import Engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Give an engine whose jobs here need no model."""
    engine = Engine(cast("Backbone", None))
    yield engine
    engine.close()


class Watched:
    """Make an endless job, and note its steps and its end."""

    def __init__(self) -> None:
        self.steps = 0
        self.started = threading.Event()
        self.thread: threading.Thread | None = None
        self.closed = threading.Event()

    def __call__(self) -> Generator[int, None, None]:
        """Count steps until closed."""
        try:
            while True:
                self.steps += 1
                self.started.set()
                yield self.steps
                time.sleep(0.001)
        finally:
            self.thread = threading.current_thread()
            self.closed.set()


@pytest.fixture
def watched() -> Watched:
    """Give an endless job that knows its steps, its thread and its end."""
    return Watched()
