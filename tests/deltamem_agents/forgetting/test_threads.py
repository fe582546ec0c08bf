"""Threads can be listed, forked, exported, rolled back and deleted, by function and by command."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from typer.testing import CliRunner

from backbone import ConfigError, DeltaMemError
from deltamem_agents import ChatDeltaMem, HybridMemory, MemoryStore, memory_from, open_checkpointer
from deltamem_agents.cli.app import app
from deltamem_agents.forgetting.savers import rows_of
from deltamem_agents.threads import export_thread, fork_thread, list_threads
from tests.deltamem_agents.forgetting.conftest import SCRIPT, scripted, talk
from tests.deltamem_agents.forgetting.test_replay import SMALL, config, ids

Make = Callable[..., ChatDeltaMem]
SPACE = ("acme",)


class Threads:
    """A graph, its checkpointer, and a memory over an archive of its own."""

    def __init__(self, saver: Any, store: MemoryStore, model: ChatDeltaMem) -> None:
        self.saver = saver
        self.replies: dict[str, AIMessage] = {}
        self.graph = scripted(model, self.replies, saver)
        self.memory = HybridMemory(store, namespace=SPACE, checkpointer=saver, model=model)

    def talk(self, thread: str, turns: range) -> None:
        """Say turns of the script one by one, and archive each."""
        for turn in turns:
            talk(self.graph, self.replies, thread, [turn])
            self.memory.archive(self.graph.get_state(config(thread)).values["messages"], thread)
            self.memory.flush()


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def threads(request: pytest.FixtureRequest, tmp_path: Path, make_model: Make) -> Iterator[Threads]:
    """Open each kind of checkpointer."""
    urls = {"sqlite": f"sqlite:///{tmp_path}/threads.sqlite", "memory": "memory://"}
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else urls[request.param]
    store = MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite")
    with store, open_checkpointer(url) as saver:
        made = Threads(saver, store, make_model(**SMALL))
        with made.memory:
            yield made


def test_a_fork_goes_its_own_way(threads: Threads) -> None:
    """The copy has the state and memory of the checkpoint, and neither thread sees what the other says."""
    threads.talk("t", range(6))
    history = [c for c in threads.graph.get_state_history(config("t")) if len(c.values.get("messages", ())) == 8]
    place = history[0].config["configurable"]["checkpoint_id"]
    fork_thread(threads.saver, "t", "copy", checkpoint=place)
    copy = threads.graph.get_state(config("copy"))
    assert ids(copy.values) == ids(history[0].values)
    mine, theirs = memory_from(copy.values), memory_from(history[0].values)
    assert (mine and mine.to_bytes()) == (theirs and theirs.to_bytes())
    talk(threads.graph, threads.replies, "copy", [8])
    assert ids(threads.graph.get_state(config("copy")).values)[-2:] == ["u8", "a8"]
    assert ids(threads.graph.get_state(config("t")).values)[-2:] == ["u5", "a5"]
    names = {one.thread: one.messages for one in list_threads(threads.saver)}
    assert names == {"t": 12, "copy": 10}
    count = fork_thread(threads.saver, "t", "end", checkpoint=place[-12:])
    assert count == fork_thread(threads.saver, "t", "whole", checkpoint=place)
    with pytest.raises(ConfigError, match=r"is part of \d+ checkpoints"):
        fork_thread(threads.saver, "t", "start", checkpoint=place[:4])
    with pytest.raises(ConfigError, match="no checkpoint"):
        fork_thread(threads.saver, "t", "short", checkpoint=place[-3:])
    with pytest.raises(ConfigError, match="already"):
        fork_thread(threads.saver, "t", "copy")
    with pytest.raises(ConfigError, match="no thread"):
        fork_thread(threads.saver, "nobody", "new")


def test_rollback_takes_both_tiers_back(threads: Threads) -> None:
    """State, working memory and archive are as they were, and the thread goes on from there."""
    threads.talk("t", range(4))
    then = threads.graph.get_state(config("t"))
    threads.talk("t", range(4, 8))
    receipt = threads.memory.rollback("t", then.config["configurable"]["checkpoint_id"])
    assert receipt.complete
    assert receipt.tiers["record"].erased == 8
    now = threads.graph.get_state(config("t"))
    assert now.values == then.values
    assert now.next == ()
    said = {record.text for record in threads.memory.store.records.list(SPACE)}
    assert said == {text for turn in SCRIPT[:4] for text in turn}
    threads.talk("t", range(8, 9))
    assert ids(threads.graph.get_state(config("t")).values)[-2:] == ["u8", "a8"]
    with pytest.raises(ConfigError, match="no checkpoint"):
        threads.memory.rollback("t", "nowhere")


def test_a_rollback_says_what_it_removed_though_none_of_it_was_archived(threads: Threads) -> None:
    """The receipt names the thread, the log the checkpoint; a second rollback to the same place has nothing to say."""
    threads.talk("t", range(2))
    place = threads.graph.get_state(config("t")).config["configurable"]["checkpoint_id"]
    talk(threads.graph, threads.replies, "t", [2, 3])
    receipt = threads.memory.rollback("t", place)
    assert (receipt.complete, receipt.threads) == (True, ("t",))
    assert "removed by a rollback" in receipt.tiers["checkpoints"].note
    assert receipt.scan is not None
    assert (receipt.scan.hits, receipt.scan.texts) == (0, 4)
    total, named = threads.memory.store.records.audit_entries(SPACE, action="forget")
    assert (named.thread, named.checkpoint, total.detail["threads"]) == ("t", place, 1)
    assert int(str(named.detail["checkpoints"])) >= 4
    again = threads.memory.rollback("t", place)
    assert (again.threads, again.digests, again.complete) == ((), (), True)


def test_a_thread_that_goes_on_is_not_rolled_back(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error says what to do, and nothing is gone."""
    threads.talk("t", range(2))
    place = threads.graph.get_state(config("t")).config["configurable"]["checkpoint_id"]
    threads.talk("t", range(2, 3))
    kind = type(rows_of(threads.saver))
    real, seen = kind.load, []

    def late(rows: Any, thread: str) -> Any:
        found = real(rows, thread)
        seen.append(thread)
        if len(seen) == 2:
            talk(threads.graph, threads.replies, "t", [3])
        return found

    monkeypatch.setattr(kind, "load", late)
    with pytest.raises(DeltaMemError, match="goes on while it is rolled back"):
        threads.memory.rollback("t", place)
    assert ids(threads.graph.get_state(config("t")).values)[-2:] == ["u3", "a3"]


def test_an_export_is_json(threads: Threads) -> None:
    """Messages, memory and checkpoints, as plain data."""
    threads.talk("t", range(5))
    exported = json.loads(json.dumps(export_thread(threads.saver, "t")))
    assert [one["data"]["id"] for one in exported["messages"]] == exported["in_state"]
    assert exported["working_memory"]["messages"] > 0
    assert exported["checkpoints"][0]["parent"] is None


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: ChatDeltaMem) -> None:
    """List, fork, export, forget, roll back and delete, on files, with JSON."""
    monkeypatch.setenv("DELTAMEM_DB", f"sqlite:///{tmp_path}/threads.sqlite")
    monkeypatch.setenv("DELTAMEM_ARCHIVE_DB", f"sqlite:///{tmp_path}/archive.sqlite")
    for name in ("model", "adapter", "window_tokens", "keep_tokens"):
        monkeypatch.setenv(f"DELTAMEM_{name.upper()}", str(getattr(model, name)))
    with (
        MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as store,
        open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver,
    ):
        made = Threads(saver, store, model)
        with made.memory:
            made.talk("t", range(3))
            place = made.graph.get_state(config("t")).config["configurable"]["checkpoint_id"]

    def run(*words: str) -> Any:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert [row["messages"] for row in run("threads", "list", "--json")] == [6]
    assert run("threads", "fork", "t", "copy", "--json")["thread"] == "copy"
    assert run("threads", "export", "copy")["thread"] == "copy"
    preview = run("forget", "-n", "acme", "--query", "turn 1 ", "--dry-run", "--json")
    assert preview["dry_run"]
    receipt = run("forget", "-n", "acme", "--query", "turn 1 ", "--json")
    assert receipt["complete"]
    assert receipt["digests"] == preview["digests"]
    assert receipt["threads"] == ["copy", "t"]
    assert "turn 1 " not in json.dumps(run("threads", "export", "copy"))
    assert run("threads", "rollback", "t", place[-12:], "-n", "acme", "--json")["complete"]
    assert run("threads", "delete", "copy", "-n", "acme", "--json")["complete"]
    assert run("threads", "delete", "t", "-n", "acme", "--json")["complete"]
    assert run("threads", "list", "--json") == []
    done = CliRunner().invoke(app, ["forget", "-n", "acme", "--query", "nothing says this"])
    assert done.exit_code == 0
    assert "found" in done.stdout
