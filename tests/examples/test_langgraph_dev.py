"""LangGraph's development server with the agents of langgraph.json, talked to as its clients do."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 600.0
FACTS = {
    "coding": ("We run the tests with make test.", "How do we run the tests?", "make test"),
    "data": ("Treat missing values with median.", "How do we treat missing values?", "median"),
}
# The tests' own process may open no sockets, so a client is a process of its own, as in life.
CLIENT = """
import asyncio, json, sys
from langgraph_sdk import get_client

async def main(url, assistant, thread, texts):
    client = get_client(url=url)
    thread = thread or (await client.threads.create())["thread_id"]
    replies = []
    for text in texts:
        said = {"messages": [{"role": "user", "content": text}]}
        out = await client.runs.wait(thread, assistant, input=said)
        replies.append(out["messages"][-1]["content"])
    state = await client.threads.get_state(thread)
    shown = [message["content"] for message in state["values"]["messages"]]
    print(json.dumps({"thread": thread, "replies": replies, "in state": shown, "output": sorted(out)}))

asyncio.run(main(*json.loads(sys.argv[1])))
"""


def unrelated(turn: int) -> str:
    """Return a log that has nothing to do with the facts."""
    return "Check this:\n" + "\n".join(f"10:{turn}{n}:00 INFO loader: loaded {200 + 7 * n} rows" for n in range(8))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Run `langgraph dev` in a folder; what it keeps stays there."""
    config = json.loads((ROOT / "langgraph.json").read_text())
    config["graphs"] = {name: str(ROOT / path) for name, path in config["graphs"].items()}
    (folder / "langgraph.json").write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--port", str(port), "--no-browser", "--no-reload"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    settings = {"PYTHONPATH": path, "LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1"}
    with (folder / "server.log").open("a") as log:
        server = subprocess.Popen(command, cwd=folder, env=os.environ | settings, stdout=log, stderr=log)
        try:
            wait_for(lambda: answers(url), server, folder / "server.log")
            yield url
        finally:
            server.terminate()
            server.wait(PATIENCE_SECONDS)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ok", timeout=5) as reply:  # noqa: S310 - our own server
            return bool(reply.status == 200)
    except OSError:
        return False


def wait_for(happened: Callable[[], bool], server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def talk(url: str, assistant: str, thread: str | None, texts: list[str]) -> dict[str, Any]:
    call = [sys.executable, "-c", CLIENT, json.dumps([url, assistant, thread, texts])]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.enable_socket
def test_both_agents_are_served_and_remember_across_a_restart(tmp_path: Path) -> None:
    """Each is told a fact that then leaves its state; after a restart the same thread answers with it."""
    threads = {}
    with served(tmp_path) as url:
        for assistant, (fact, _, _) in FACTS.items():
            first = talk(url, assistant, None, [fact, *(unrelated(turn) for turn in range(7))])
            assert "delta_mem" not in first["output"]
            assert fact not in first["in state"]
            threads[assistant] = first["thread"]
    with served(tmp_path) as url:
        for assistant, (_, question, value) in FACTS.items():
            again = talk(url, assistant, threads[assistant], [question])
            assert value in again["replies"][0]
            assert len(again["in state"]) > 2
