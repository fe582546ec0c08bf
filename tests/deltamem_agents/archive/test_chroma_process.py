"""Chroma in a process of its own: the same answers, and what happens when either process ends."""

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deltamem_agents.archive import chroma_process
from deltamem_agents.archive.chroma import ChromaIndex, open_client
from deltamem_agents.archive.chroma_process import ChromaProcess, _answer, _read
from deltamem_agents.archive.directory import IndexDirectory, Manifest
from deltamem_agents.archive.errors import IndexBrokenError, IndexUnreachableError, VectorIndexError

VECTORS = {f"v{number}": np.eye(4, dtype=np.float32)[number] for number in range(4)}

WITHOUT_CHROMA = """
import sys
from langchain_core.embeddings import DeterministicFakeEmbedding
from deltamem_agents import MemoryStore
from deltamem_agents.archive.writes import NewRecord
with MemoryStore.from_url("sqlite:///" + sys.argv[1] + "/a.sqlite", sys.argv[1] + "/index",
                          DeterministicFakeEmbedding(size=8)) as store:
    store.records.add(("notes",), NewRecord("a text"))
    store.flush()
    assert store.recall(("notes",), "a text")[0].meaning > 0.99
    store.rebuild()
print(sorted(name for name in sys.modules if name.partition(".")[0] == "chromadb"))
"""

KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from deltamem_agents.archive.chroma_process import ChromaProcess
index = ChromaProcess(Path(sys.argv[1]))
index.upsert(1, {f"v{n}": np.eye(4, dtype=np.float32)[n] for n in range(4)})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[ChromaProcess]:
    process = ChromaProcess(tmp_path)
    yield process
    process.close()


def test_the_files_are_their_owners_only(tmp_path: Path) -> None:
    """Also in a directory that was there before and that others can read."""
    tmp_path.chmod(0o755)
    directory = IndexDirectory(tmp_path)
    manifest = Manifest("i", 0, "m", 4, directory.new_folder())
    directory.write(manifest)
    process = directory.open(manifest)
    process.upsert(7, VECTORS)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    process.close()
    directory.release()
    assert {"index.json", "index.lock", "chroma.sqlite3"} <= modes.keys()
    assert set(modes.values()) == {0o600, 0o700}


def test_answers_are_those_of_chroma_in_this_process(index: ChromaProcess, tmp_path: Path) -> None:
    """Every method gives what the same method gives without a process between."""
    (tmp_path / "own").mkdir()
    own = ChromaIndex(open_client(str(tmp_path / "own")))
    for one in (index, own):
        one.upsert(7, VECTORS)
        one.upsert(8, {"other": VECTORS["v1"]})
        one.delete(7, ["v3", "unknown"])
        one.drop(8)
    assert index.spaces() == own.spaces() == {7}
    assert index.ids(7) == own.ids(7) == {"v0", "v1", "v2"}
    near = np.asarray([0.1, 0.9, 0.2, 0], np.float32)
    assert index.query(7, near, 2) == own.query(7, near, 2)
    assert index.query(9, near, 2) == own.query(9, near, 2) == {}
    own.close()


def test_a_space_that_was_dropped_meanwhile_is_empty(tmp_path: Path) -> None:
    """A question that comes as the last entry of a namespace goes finds nothing, and is no fault of the index."""
    client = open_client(str(tmp_path))
    one, other = ChromaIndex(client), ChromaIndex(client)
    one.upsert(7, VECTORS)
    other.drop(7)
    assert one.query(7, VECTORS["v0"], 2) == {}
    one.close()


def test_threads_ask_at_the_same_time(index: ChromaProcess) -> None:
    """Each thread gets the answer to its own question."""
    index.upsert(1, VECTORS)
    wrong: list[str] = []

    def ask(name: str) -> None:
        wrong.extend(name for _ in range(20) if next(iter(index.query(1, VECTORS[name], 1))) != name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in VECTORS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_error_of_chroma_is_raised_here(index: ChromaProcess) -> None:
    """A wrong call raises, and the next one is answered."""
    index.upsert(1, VECTORS)
    with pytest.raises(VectorIndexError, match="dimension"):
        index.query(1, np.ones(3, np.float32), 1)
    assert len(index.ids(1)) == 4


def test_a_process_that_is_gone_is_told(index: ChromaProcess) -> None:
    """Who waits and who asks afterwards gets an error, and closing is no error."""
    os.kill(index._process.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(IndexBrokenError, match="ended with -9"):
            index.spaces()
    index.close()
    index.close()


def test_a_process_that_hangs_is_ended(index: ChromaProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks is told how long Chroma was waited for; afterwards the process is gone."""
    monkeypatch.setattr(chroma_process, "_PATIENCE_SECONDS", 0.2)
    os.kill(index._process.pid, signal.SIGSTOP)
    with pytest.raises(IndexBrokenError, match=r"did not answer `spaces` within 0\.2 seconds"):
        index.spaces()
    with pytest.raises(IndexBrokenError, match="ended with -9"):
        index.spaces()


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """What Chroma said when it opened the folder is in the error."""
    (tmp_path / "chroma.sqlite3").write_bytes(b"not a database" * 1000)
    with pytest.raises(IndexBrokenError, match="not a database"):
        ChromaProcess(tmp_path)


def test_what_a_killed_program_wrote_is_there(tmp_path: Path) -> None:
    """The process ends with the program that started it, and lets the next one have the folder."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    index = ChromaProcess(tmp_path)
    assert index.ids(1) == set(VECTORS)
    index.close()


def test_a_program_with_texts_never_runs_chroma(tmp_path: Path) -> None:
    """Chroma writes its process's unused memory into its files; a store of texts does not even import it."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CHROMA, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_no_module_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may be run in a directory that is somebody else's."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "filelock.py").write_text("raise SystemExit(3)")
    (tmp_path / "here" / ".env").write_text("chroma_api_impl=nobody.Nothing")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    index = ChromaProcess(Path("../folder"))
    assert index.spaces() == set()
    index.close()


def test_a_process_that_does_not_begin_spoils_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is not to blame, and stays where it is."""
    place = IndexDirectory(tmp_path / "index")
    manifest = Manifest("id", 0, "model", 0, place.new_folder())
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(IndexUnreachableError, match="could not begin"):
        place.open(manifest)
    assert (tmp_path / "index" / manifest.folder).is_dir()
    place.release()


def kill_while_checked(monkeypatch: pytest.MonkeyPatch, times: int, how: signal.Signals) -> None:
    """Let the next processes be killed after they have been given the folder, before they have read it."""
    asking, left = ChromaProcess._ask, iter(range(times))

    def ask(self: ChromaProcess, method: str, *arguments: Any, **options: Any) -> Any:
        if method == "check" and next(left, None) is not None:
            self._process.send_signal(how)
            self._process.wait()
        return asking(self, method, *arguments, **options)

    monkeypatch.setattr(ChromaProcess, "_ask", ask)


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[tuple[IndexDirectory, Manifest]]:
    """Return a directory with a sound index in it."""
    place = IndexDirectory(tmp_path / "index")
    manifest = Manifest("id", 0, "model", 4, place.new_folder())
    index = place.open(manifest)
    index.upsert(1, VECTORS)
    index.close()
    yield place, manifest
    place.release()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_while_it_opens_is_tried_once_more(
    filled: tuple[IndexDirectory, Manifest], how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody, or a machine without memory, has killed it: the folder is sound, and is used."""
    place, manifest = filled
    kill_while_checked(monkeypatch, 1, how)
    index = place.open(manifest)
    assert index.ids(1) == set(VECTORS)
    index.close()


def test_a_folder_that_fails_twice_is_set_aside(
    filled: tuple[IndexDirectory, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how the process ended."""
    place, manifest = filled
    kill_while_checked(monkeypatch, 2, signal.SIGKILL)
    with pytest.raises(IndexBrokenError, match=r"was set aside \(.* ended with -9\)"):
        place.open(manifest)
    assert not (place.path / manifest.folder).exists()
    assert (place.path / f"broken-{manifest.folder}").is_dir()


def test_every_request_is_answered() -> None:
    """An error that is no Exception, such as a panic of Chroma's Rust parts, is told like any other."""

    class Panicking:
        def count(self, space: int) -> int:
            raise BaseException(f"panic in {space}")

    stream = io.BytesIO()
    _answer(Panicking(), (5, "count", (1,)), stream, threading.Lock())
    stream.seek(0)
    assert _read(stream) == (5, "panic in 1", None)


def test_a_fork_does_not_keep_the_process(index: ChromaProcess) -> None:
    """A copy of the program has the pipe open as well, and the process ends all the same."""
    index.upsert(1, VECTORS)
    copy = os.fork()
    if copy == 0:
        signal.pause()
        os._exit(0)
    try:
        index.close()
        assert index._process.returncode == 0
    finally:
        os.kill(copy, signal.SIGKILL)
        os.waitpid(copy, 0)
