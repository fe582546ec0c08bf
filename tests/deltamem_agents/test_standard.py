"""LangChain's standard tests of a chat model, none left out, on the bundled model."""

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from deltamem_agents import ChatDeltaMem


class TestChatDeltaMemUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        """Name the class under test."""
        return ChatDeltaMem

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """Take the bundled model as it comes."""
        return {}


class TestChatDeltaMemIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        """Name the class under test."""
        return ChatDeltaMem

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """Take the bundled model as it comes."""
        return {}

    @property
    def supports_json_mode(self) -> bool:
        """JSON mode is decoded under a grammar."""
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        """Blocks of Anthropic's kinds are read or left out."""
        return True

    @property
    def model_override_value(self) -> str | None:
        """A call may name the model."""
        return "deltamem-tiny"


def test_every_standard_test_is_run_as_it_is() -> None:
    """No standard test is replaced, so what passes is what LangChain wrote."""
    for suite in (TestChatDeltaMemUnit, TestChatDeltaMemIntegration):
        assert [name for name in vars(suite) if name.startswith("test_")] == []
