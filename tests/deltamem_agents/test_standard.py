"""LangChain's standard tests of a chat model, none left out, on the bundled model."""

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from deltamem_agents import ChatDeltaMem


class TestChatDeltaMemUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatDeltaMem

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {}


class TestChatDeltaMemIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatDeltaMem

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str | None:
        return "deltamem-tiny"


def test_every_standard_test_is_run() -> None:
    """No standard test is replaced here, so what passes is what LangChain wrote."""
    for suite in (TestChatDeltaMemUnit, TestChatDeltaMemIntegration):
        assert [name for name in vars(suite) if name.startswith("test_")] == []
