"""Share an empty memory, and a chat model that says what a test tells it to."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from deltamem_agents import HybridMemory, MemoryStore


class Scripted(GenericFakeChatModel):
    """Give back the messages of an iterator; tools are offered and ignored."""

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> "Scripted":
        """Take tools as real models do."""
        return self


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[HybridMemory]:
    """Return a memory over an empty archive."""
    with (
        MemoryStore.from_url(f"sqlite:///{tmp_path / 'memory.sqlite'}") as store,
        HybridMemory(store, namespace=("examples", "test")) as memory,
    ):
        yield memory


@pytest.fixture
def scripted() -> Callable[..., BaseChatModel]:
    """Return a function that makes a model with these replies, one a call."""

    def make(*replies: AIMessage | str) -> BaseChatModel:
        return Scripted(messages=iter([AIMessage(r) if isinstance(r, str) else r for r in replies]))

    return make
