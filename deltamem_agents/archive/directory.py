"""Own an index directory: one process at a time, a manifest that says what is in it, and broken folders set aside."""

import contextlib
import json
import logging
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from backbone import ConfigError
from deltamem_agents._files import make_private
from deltamem_agents.archive.chroma_process import ChromaProcess, NoAnswerError
from deltamem_agents.archive.errors import IndexBrokenError, IndexBusyError

__all__ = ["IndexDirectory", "Manifest"]

_MANIFEST = "index.json"
_BROKEN = "broken-"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Say what an index holds.

    id: of the index, known to the record as well. generation: how many batches went in. model, dims: of its vectors;
    dims is 0 before the first. folder: where Chroma keeps them.
    """

    id: str
    generation: int
    model: str
    dims: int
    folder: str


class IndexDirectory:
    """Hold the lock of an index directory, and read and write what lies in it.

    Layout: index.lock, index.json, and one folder of Chroma's that the manifest names.
    """

    shared = False

    def __init__(self, path: Path) -> None:
        """Make the directory if it is missing, and lock it.

        Raises IndexBusyError if another owner has it, and ConfigError if it cannot be made.
        """
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"the index needs a folder, and {path} cannot be one: {error.strerror}") from error
        self.path = path
        self._lock = FileLock(path / "index.lock", mode=0o600, thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise IndexBusyError(f"the index in {path} is open in another process or store") from error

    def __str__(self) -> str:
        return str(self.path)

    def feeding(self) -> contextlib.AbstractContextManager[None]:
        """Keep others from feeding the index meanwhile; who owns the directory is alone already."""
        return contextlib.nullcontext()

    def release(self) -> None:
        """Let another owner have the directory."""
        self._lock.release()

    def read(self) -> Manifest | None:
        """Return the manifest, or None where there is no index; raises IndexBrokenError for a spoilt one."""
        file = self.path / _MANIFEST
        if not file.exists():
            return None
        try:
            return Manifest(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise IndexBrokenError(f"{file} cannot be read ({error})") from error

    def write(self, manifest: Manifest) -> None:
        """Replace the manifest; after a crash there is the old one or the new one."""
        file = self.path / _MANIFEST
        new = file.with_suffix(".new")
        make_private(new)
        with new.open("w", encoding="utf-8") as stream:
            json.dump(asdict(manifest), stream)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(file)

    def new_folder(self) -> str:
        """Make an empty folder for Chroma; return its name."""
        name = uuid.uuid4().hex
        (self.path / name).mkdir(mode=0o700)
        return name

    def open(self, manifest: Manifest) -> ChromaProcess:
        """Open the manifest's folder in a process of its own; a process that fails is tried once more.

        Raises:
            IndexBrokenError: it is missing, or it could not be read; then it has been set aside.
            IndexUnreachableError: the process could not begin.
        """
        folder = self.path / manifest.folder
        if not folder.is_dir():
            raise IndexBrokenError(f"{folder} is missing")
        try:
            return _opened(folder)
        except IndexBrokenError as error:
            folder.rename(self.path / f"{_BROKEN}{manifest.folder}")
            raise IndexBrokenError(f"{folder} cannot be read and was set aside ({error})") from error

    def remove(self, folder: str) -> None:
        """Remove a folder that nobody has open, also one that was set aside."""
        for name in (folder, f"{_BROKEN}{folder}"):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def remove_others(self, kept: str) -> None:
        """Remove every folder but `kept`: older ones, and broken ones."""
        for other in self.path.iterdir():
            if other.is_dir() and other.name != kept:
                shutil.rmtree(other)


def _opened(folder: Path) -> ChromaProcess:
    """Open a folder, at the second try if it has to be: a process may be killed for what is no fault of its folder."""
    try:
        return ChromaProcess(folder)
    except NoAnswerError:  # it was waited for long enough
        raise
    except IndexBrokenError as error:
        _log.warning("Chroma failed while it opened %s, and is tried once more: %s", folder, error)
        return ChromaProcess(folder)
