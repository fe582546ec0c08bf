"""Open a Chroma folder and use every collection once: `python -m deltamem_agents.archive.probe FOLDER`.

A damaged folder can crash or hang the process that opens it, so this runs in a process of its own.
"""

import subprocess
import sys

__all__ = ["probe", "try_folder"]

_PATIENCE_SECONDS = 120


def probe(folder: str) -> str | None:
    """Return what is wrong with a folder, or None if all of it can be read."""
    command = [sys.executable, "-m", "deltamem_agents.archive.probe", folder]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"it did not open within {_PATIENCE_SECONDS} seconds"
    if done.returncode == 0:
        return None
    last = done.stderr.strip().splitlines()[-1:] or [f"the process that opened it ended with {done.returncode}"]
    return last[0]


def try_folder(folder: str) -> None:
    """Count, read and query each collection; raises whatever Chroma raises."""
    # chromadb takes seconds to import, and only the child process needs it here.
    from deltamem_agents.archive.chroma import open_client  # noqa: PLC0415

    client = open_client(folder)
    for collection in client.list_collections():
        if collection.count():
            some = collection.get(limit=1, include=["embeddings"])["embeddings"]
            collection.query(query_embeddings=some, n_results=1)


if __name__ == "__main__":
    try_folder(sys.argv[1])
