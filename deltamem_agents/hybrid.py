"""The three tiers as one object: the window, the working memory behind it, and the archive beside both."""

from typing import Any

from langchain.agents.middleware import AgentMiddleware
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool

from deltamem_agents.messages import UNWRITTEN
from deltamem_agents.middleware import DeltaMemMiddleware
from deltamem_agents.recall_middleware import RecallMiddleware, recalled_report
from deltamem_agents.reviewing import ArchiveReview

__all__ = ["HybridMemory"]

SEARCH_TOOL = "search_memory"


class HybridMemory(ArchiveReview):
    """Give an agent exact recall beside its working memory.

    Every message of a thread goes to the archive as it is said, on a thread of its own. Before a model call the newest
    user message is searched for, and what suits it stands in the prompt as a recalled block. The block is in no graph
    state, is never written to the working memory, and is never archived.

    store: where records are kept; open it before and close it after. policy: who decides what the archive keeps, finds
    and shows (docs/policies.md); None restricts nothing. It is not asked about the working memory. namespace: whose
    memory it is; nothing outside it is ever found. limit: records asked for at each search. threshold: relevance, 0 to
    1, below which a record is not shown; docs/archive.md says how the default was chosen. budget_tokens: the block's
    largest size. trace_text: OpenTelemetry's spans hold questions and recalled blocks. Raises ConfigError for values
    that cannot work, RecordInvalidError for a namespace that is none.
    """

    def middleware(self, *, trim_history: bool = False) -> list[AgentMiddleware[Any, Any, Any]]:
        """Return the list for `create_agent(middleware=…)`: recall and archiving, then the working memory.

        trim_history: absorbed messages leave the checkpoint; they are in the archive. With a model other than
        ChatDeltaMem there is no working memory, and the archive alone remembers.
        """
        return [RecallMiddleware(self), DeltaMemMiddleware(trim_history=trim_history)]

    def search_tool(self) -> BaseTool:
        """Return the tool `search_memory`, for agents that ask for themselves.

        Its results are neither written to the working memory nor archived.
        """

        def search_memory(query: str) -> tuple[str, dict[str, Any]]:
            """Search what was said in earlier conversations, and return quotes with citations."""
            block = self.recall(query)
            return block.text or "Nothing was found.", {UNWRITTEN: True, "recalled": recalled_report(block, "")}

        return StructuredTool.from_function(search_memory, name=SEARCH_TOOL, response_format="content_and_artifact")

    def pre_model_hook(self, state: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        """Do for `create_react_agent(pre_model_hook=…)` what the middleware does before a model call."""
        messages = state["messages"]
        self.archive(messages, _thread(config))
        shown, _ = self.with_recalled(messages, in_prompt=messages, as_system=False)
        return {"llm_input_messages": shown}

    def post_model_hook(self, state: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        """Do for `create_react_agent(post_model_hook=…)` what the middleware does after a model call."""
        self.archive(state["messages"], _thread(config))
        return {}


def _thread(config: RunnableConfig) -> str | None:
    thread: str | None = config.get("configurable", {}).get("thread_id")
    return thread
