"""A process killed at any step of write, index and delete: what its successor finds."""

import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE_SECONDS = 300

# Forks a process for every step, kills it there, and lets another one look at what is left. Chroma runs in the process
# that is killed, and so ends at the same step; in one of its own it would also finish what it was asked. What
# Chroma and numpy import at their first use is imported once, ahead of all forks.
KILLED_AT_EVERY_STEP = """
import os, shutil, signal, sys
from pathlib import Path
import chromadb.api.rust, chromadb.telemetry.product.posthog, numpy.random
from langchain_core.embeddings import DeterministicFakeEmbedding
from deltamem_agents.archive import directory, indexer, writes
from deltamem_agents.archive.chroma import ChromaIndex, open_client
from deltamem_agents.archive.directory import IndexDirectory
from deltamem_agents.archive.feeder import Feeder
from deltamem_agents.archive.store import MemoryStore

root, NS = Path(sys.argv[1]), ("user", "ann")
# So that every step happens in the thread of `work`, in the same order each time.
Feeder._feed = lambda self, indexer: self._stopping.wait()
directory.ChromaProcess = lambda folder: ChromaIndex(open_client(str(folder)))

def store(folder):
    return MemoryStore(f"sqlite:///{folder}/a.sqlite", folder / "index", DeterministicFakeEmbedding(size=4))

def work(folder, fatal):
    steps = 0
    def step():
        nonlocal steps
        steps += 1
        if steps == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
    def around(function):
        def wrapped(*args, **options):
            step()
            done = function(*args, **options)
            step()
            return done
        return wrapped
    for owner, names in ((writes, ["add", "delete_where", "update"]), (ChromaIndex, ["upsert", "delete"]),
                         (IndexDirectory, ["write", "new_folder"]), (indexer, ["acknowledge", "remember_index"])):
        for name in names:
            setattr(owner, name, around(getattr(owner, name)))
    memory = store(folder)
    for text in ("one", "two", "three"):
        memory.records.add(NS, writes.NewRecord(text))
    memory.flush()
    first, second, _ = memory.records.list(NS)
    memory.records.delete(NS, [first.id])
    memory.records.update(NS, second.id, "other", expected_version=1)
    memory.flush()
    memory.close()

def look(folder):
    memory = store(folder)
    assert memory.vectors.fault is None, memory.vectors.fault
    for text in ("one", "two", "three"):
        memory.records.add(NS, writes.NewRecord(text))
    memory.flush()
    report = memory.verify()
    assert report.ok and report.pending == 0 and report.vectors == report.records >= 3, report
    assert memory.rebuild() == report.records
    assert memory.verify().ok
    memory.close()

def in_a_fork(task):
    child = os.fork()
    if child == 0:
        try:
            task()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

fatal = 0
while True:
    fatal += 1
    folder = root / str(fatal)
    folder.mkdir()
    ended = in_a_fork(lambda: work(folder, fatal))
    assert ended in (0, -signal.SIGKILL), ended
    assert in_a_fork(lambda: look(folder)) == 0, fatal
    shutil.rmtree(folder)
    if ended == 0:
        break
print(fatal)
"""


@pytest.mark.slow
def test_a_process_killed_at_any_step_leaves_equal_sets(tmp_path: Path) -> None:
    """After SIGKILL anywhere in write, index and delete, the index catches up and holds what the record holds."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EVERY_STEP, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
