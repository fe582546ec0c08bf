"""Share a chat model that says what a test tells it to."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage


class Scripted(GenericFakeChatModel):
    """Give back the messages of an iterator; tools are offered and ignored."""

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> "Scripted":
        """Take tools as real models do."""
        return self


@pytest.fixture
def scripted() -> Callable[..., BaseChatModel]:
    """Return a function that makes a model with these replies, one a call."""

    def make(*replies: AIMessage | str) -> BaseChatModel:
        return Scripted(messages=iter([AIMessage(r) if isinstance(r, str) else r for r in replies]))

    return make
