"""Make files that hold what was said for their owner only."""

import logging
import os
from pathlib import Path

__all__ = ["make_private"]

_log = logging.getLogger(__name__)


def make_private(path: str | Path) -> None:
    """Create a file for its owner only; one that exists and that others can read is named in the log.

    SQLite gives its write-ahead log the same permissions.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        if Path(path).stat().st_mode & 0o077:
            _log.warning("other users of this machine can read %s; to change that: chmod 600 %s", path, path)
