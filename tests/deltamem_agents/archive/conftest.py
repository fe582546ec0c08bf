"""Real databases for the archive: an empty one for each test, in SQLite and in Postgres."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deltamem_agents.archive.record_store import RecordStore


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
