"""Whatever says what is to be forgotten is found, wherever it stands, and nothing that is another's goes with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backbone import ConfigError
from deltamem_agents import MemoryStore, open_checkpointer
from deltamem_agents.archive.logged import LEFT_OUT
from deltamem_agents.archive.records import content_hash
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.policy import LegalHold, MemoryPolicy, PolicyMessage, Retain, Signals
from tests.deltamem_agents.forgetting.conftest import assert_gone
from tests.deltamem_agents.forgetting.test_known_threads import LATER, SECRET, SPACE, Setting


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    """Open an archive and a checkpointer on disk."""
    store = MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite")
    with store, open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver:
        yield Setting(tmp_path, saver, store)


@pytest.mark.parametrize("what", [{"ids": ["slack#17"]}, {"query": "canary"}, {"subject": "ann"}])
def test_an_id_may_have_a_number_sign(setting: Setting, what: dict[str, Any]) -> None:
    """A message goes from both tiers, and so does what was said under its id before it was edited."""
    setting.store.records.add(SPACE, NewRecord(SECRET, thread="t", message_id="slack#17", tags=("subject:ann",)))
    with setting.memory() as memory:
        setting.say(memory, SECRET, "slack#17")
        setting.say(memory, LATER, "slack#18")
        setting.say(memory, f"{LATER} or next to it", "slack#17")
        receipt = memory.forget(**what, reason="asked")
    assert receipt.complete
    assert setting.names("t") == ["a1", "slack#18", "a3", "a4"]
    assert_gone(setting.folder, SECRET)


def test_a_thread_of_another_namespace_is_not_touched(setting: Setting) -> None:
    """A memory forgets no thread that only others know; a parent forgets what is below it, a stranger's is unknown."""
    with setting.memory(LegalHold(), ("acme", "bob")) as other, setting.memory() as memory:
        setting.say(other, SECRET, "m1", "bobs")
        for what in ({}, {"query": "canary"}, {"ids": ["m1"]}):
            with pytest.raises(ConfigError, match="other namespaces"):
                memory.forget(thread="bobs", reason="asked", **what)
        assert setting.names("bobs") == ["m1", "a1"]
        assert memory.forget(thread="nobodys", reason="asked").complete
    with setting.memory(namespace=("acme",)) as parent:
        assert parent.forget(thread="bobs", namespace=("acme", "bob"), reason="asked").complete
    assert_gone(setting.folder, SECRET)


class About(MemoryPolicy):
    """Say of everything that it is about one person."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        return Retain(tags=("subject:Bob Miller", "project:x"), reason="it names him")


def test_the_name_of_a_subject_is_not_in_the_log(setting: Setting) -> None:
    """Tags are logged with a digest for the name, and a reason that names who is forgotten is left out."""
    with setting.memory(About()) as memory:
        setting.say(memory, SECRET, "m1")
        receipt = memory.forget(subject="Bob Miller", reason="bob miller has asked")
    assert (receipt.complete, receipt.reason) == (True, LEFT_OUT)
    entries = setting.store.records.audit_entries(SPACE, action="write")
    digest = content_hash("Bob Miller")
    assert [entry.detail["tags"] for entry in entries] == [[f"subject:{digest}", "project:x"]] * 2
    assert setting.store.verify().ok
    for text in ("Bob Miller", "bob miller"):
        assert_gone(setting.folder, text)
