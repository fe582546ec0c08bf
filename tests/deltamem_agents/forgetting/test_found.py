"""Whatever says what is to be forgotten is found, wherever it stands, and nothing that is another's goes with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backbone import ConfigError
from deltamem_agents import MemoryStore, open_checkpointer
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.policy import LegalHold
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
