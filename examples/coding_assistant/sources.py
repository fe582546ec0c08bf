"""Show the person what the archive quoted in the prompt, word for word and with its citations."""

from collections.abc import Awaitable, Callable
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import HumanMessage

from deltamem_agents import recalled_text

__all__ = ["Sources"]

Response = ModelResponse[Any]


class Sources(AgentMiddleware[Any, Any]):
    """Write the recalled block of each request to the graph's custom stream, so that no quote depends on the model.

    Put it after the memory's middleware in the list: the block is in that request only, in no state.
    """

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Response]) -> Response:
        """Call the model, and show what it was shown."""
        self._show(request)
        return handler(request)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Response]]
    ) -> Response:
        """Call the model without blocking the event loop, and show what it was shown."""
        self._show(request)
        return await handler(request)

    def _show(self, request: ModelRequest[Any]) -> None:
        # After a tool call the same block stands in the prompt again.
        if isinstance(request.messages[-1], HumanMessage) and (text := recalled_text(request.messages)):
            request.runtime.stream_writer(f"from the archive:\n{text}")
