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

    # The bundled model copies the number and the name from the question, but not yet without slips: 13 for 3, and other
    # characters of the same script. The calls are valid. Strict, so that a better model takes these marks out.

    @pytest.mark.xfail(reason="the bundled model answers magic_function(13) for magic_function(3)", strict=True)
    def test_tool_calling(self, model: BaseChatModel) -> None:
        """The argument of a forced call is the number in the question."""
        super().test_tool_calling(model)

    @pytest.mark.xfail(reason="the bundled model answers magic_function(13) for magic_function(3)", strict=True)
    async def test_tool_calling_async(self, model: BaseChatModel) -> None:
        """The argument of a forced call is the number in the question."""
        await super().test_tool_calling_async(model)

    @pytest.mark.xfail(reason="the bundled model slips when it copies Japanese names", strict=True)
    def test_unicode_tool_call_integration(
        self,
        model: BaseChatModel,
        *,
        tool_choice: str | None = None,  # noqa: PT028 - as in the test that is called
        force_tool_call: bool = True,  # noqa: PT028
    ) -> None:
        """The argument of a forced call is the Chinese or Japanese name in the question."""
        super().test_unicode_tool_call_integration(model, tool_choice=tool_choice, force_tool_call=force_tool_call)


def test_every_other_standard_test_is_run() -> None:
    """Three standard tests are expected to fail; none is replaced, so what passes is what LangChain wrote."""
    assert [name for name in vars(TestChatDeltaMemUnit) if name.startswith("test_")] == []
    assert [name for name in vars(TestChatDeltaMemIntegration) if name.startswith("test_")] == [
        "test_tool_calling",
        "test_tool_calling_async",
        "test_unicode_tool_call_integration",
    ]
