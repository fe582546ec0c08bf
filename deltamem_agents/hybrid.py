"""The three tiers as one object: the window, the working memory behind it, and the archive beside both."""

from collections.abc import Sequence
from typing import Any

from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.checkpoint.base import BaseCheckpointSaver

from backbone import ConfigError
from deltamem_agents.archive.records import Namespace
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archiving import in_quarantine
from deltamem_agents.forgetting.forget import forget
from deltamem_agents.forgetting.receipt import ForgetReceipt
from deltamem_agents.forgetting.rollback import archived_since
from deltamem_agents.forgetting.selection import Wanted
from deltamem_agents.lineage import Lineage
from deltamem_agents.memory_cell import memory_from
from deltamem_agents.messages import RECALLED_KEY, UNWRITTEN, with_text
from deltamem_agents.middleware import DeltaMemMiddleware
from deltamem_agents.policy import MemoryPolicy, PolicyChain, PolicyContext
from deltamem_agents.recall_middleware import RecallMiddleware, RuledRecallMiddleware, with_report
from deltamem_agents.recalled import RecalledBlock, recalled_report
from deltamem_agents.recalling import DEFAULT_THRESHOLD, in_window
from deltamem_agents.reviewing import ArchiveReview
from deltamem_agents.running import current_place
from deltamem_agents.threads import fork_thread, look_back

__all__ = ["HybridMemory"]

SEARCH_TOOL = "search_memory"
_BLOCKS = 1_000  # of calls that have not ended
_Call = tuple[str | None, str | None]


class HybridMemory(ArchiveReview):
    """Give an agent exact recall beside its working memory.

    Every message of a thread goes to the archive as it is said, on a thread of its own. Before a model call the newest
    user message is searched for, and what suits it stands in the prompt as a recalled block. The block is in no graph
    state, is never written to the working memory, and is never archived.

    store: where records are kept; open it before and close it after. policy: who decides what both memories keep, and
    what the archive finds and shows (docs/policies.md); None restricts nothing. namespace: whose memory it is, which
    has to be said; nothing outside it is ever found. limit: records asked for at each search. threshold: relevance, 0
    to 1, below which a record is not shown; docs/archive.md says how the default was chosen. budget_tokens: the block's
    largest size. trace_text: OpenTelemetry's spans hold questions and recalled blocks. Raises ConfigError for values
    that cannot work, RecordInvalidError for a namespace that is none.

    checkpointer, model: for `forget` to reach threads and their working memories: the open checkpointer of the agent,
    and a ChatDeltaMem called as the agent calls it, with the same tools and system prompt (docs/forgetting.md).
    """

    def __init__(
        self,
        store: MemoryStore,
        policy: PolicyChain | MemoryPolicy | None = None,
        namespace: Namespace = (),
        *,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
        model: Runnable[Any, Any] | None = None,
        limit: int = 8,
        threshold: float = DEFAULT_THRESHOLD,
        budget_tokens: int = 256,
        trace_text: bool = False,
    ) -> None:
        super().__init__(
            store,
            policy,
            namespace=namespace,
            limit=limit,
            threshold=threshold,
            budget_tokens=budget_tokens,
            trace_text=trace_text,
        )
        self.checkpointer = checkpointer
        self.model = model
        self._blocks: dict[_Call, RecalledBlock] = {}

    def forget(
        self,
        *,
        ids: Sequence[str] | None = None,
        query: str | None = None,
        thread: str | None = None,
        namespace: Namespace | None = None,
        subject: str | None = None,
        reason: str,
        actor: str = "user",
        secure: bool = True,
        dry_run: bool = False,
    ) -> ForgetReceipt:
        """Erase from every tier what all of these name, and return a receipt that proves it.

        ids: of records or messages. query: whatever says this text, letter case aside: records, messages, store items,
        other texts in checkpoints. thread: what was said there; alone, the whole thread. namespace: this memory's or
        one below it, with all that is in there. subject: records with the tag subject:NAME. Policies are asked first;
        what they keep is in the receipt. secure: files are written anew, so that no byte is left, and searched; False
        only deletes. dry_run: nothing is changed, the receipt says what would go. A call that was cut off is finished
        by the next one.

        Raises ConfigError if nothing is named, for a thread that only other namespaces know, and for a checkpointer
        that cannot be rewritten; DeltaMemError if a thread goes on all the while.
        """
        self._writer.flush()
        chosen = None if ids is None else frozenset(ids)
        wanted = Wanted(self.namespace, chosen, query, thread, namespace, subject)
        return self._forget(wanted, reason=reason, actor=actor, secure=secure, dry_run=dry_run)

    def _forget(self, wanted: Wanted, **how: Any) -> ForgetReceipt:
        return forget(self.store, self.policy, wanted, checkpointer=self.checkpointer, model=self.model, **how)

    def fork(self, thread: str, target: str, *, checkpoint: str | None = None) -> int:
        """Copy a thread up to a checkpoint, the newest if none is named, to a new one; return how many were copied.

        The archive knows the copy as it knows the thread, and so `forget` reaches it. Raises ConfigError for an unknown
        thread or checkpoint, for a target that exists, and without a checkpointer.
        """
        saver = self._checkpointer("fork a thread")
        self._writer.flush()
        return fork_thread(saver, thread, target, checkpoint=checkpoint, store=self.store)

    def rollback(self, thread: str, checkpoint: str, *, reason: str = "rolled back") -> ForgetReceipt:
        """Take a thread back to a checkpoint: window and working memory, and the archive's records of what came after.

        Newer checkpoints are removed, which the receipt and the audit log say; records are forgotten as `forget` does
        it, and so policies can keep them. A call that was cut off is finished by the next one, as with `forget`. Raises
        ConfigError for an unknown thread or checkpoint, and without a checkpointer; DeltaMemError if the thread goes on
        meanwhile.
        """
        saver = self._checkpointer("roll a thread back")
        self._writer.flush()
        rolled = look_back(saver, thread, checkpoint)
        later = archived_since(self.store.engine, self.namespace, rolled)
        wanted = Wanted(self.namespace, frozenset(later), thread=thread)
        return self._forget(wanted, reason=reason, rolled=rolled)

    def _checkpointer(self, what: str) -> BaseCheckpointSaver[Any]:
        if self.checkpointer is None:
            raise ConfigError(f"to {what}, give HybridMemory its checkpointer")
        return self.checkpointer

    def middleware(self, *, trim_history: bool = False) -> list[AgentMiddleware[Any, Any, Any]]:
        """Return the list for `create_agent(middleware=…)`: recall and archiving, then the working memory.

        trim_history: absorbed messages leave the checkpoint; they are in the archive. With a model other than
        ChatDeltaMem there is no working memory, and the archive alone remembers.
        """
        if not self.policy.policies:
            return [RecallMiddleware(self), DeltaMemMiddleware(trim_history=trim_history)]
        return [RuledRecallMiddleware(self), DeltaMemMiddleware(trim_history=trim_history, policy=self.retention)]

    def search_tool(self) -> BaseTool:
        """Return the tool `search_memory`, for agents that ask for themselves.

        Its results are neither written to the working memory nor archived.
        """

        def search_memory(query: str) -> tuple[str, dict[str, Any]]:
            """Search what was said in earlier conversations, and return quotes with citations."""
            block = self.recall(query)
            return block.text or "Nothing was found.", {UNWRITTEN: True, RECALLED_KEY: recalled_report(block, "")}

        return StructuredTool.from_function(search_memory, name=SEARCH_TOOL, response_format="content_and_artifact")

    def pre_model_hook(self, state: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        """Do for `create_react_agent(pre_model_hook=…)` what the middleware does before a model call."""
        messages, thread, run = state["messages"], _thread(config), current_place().run
        # Decided here first, so that the archive's thread finds the decisions.
        lineage = Lineage(self.retention, thread, run, in_quarantine(self.store.records, self.namespace, thread))
        ruled = [self._ruled(message, lineage) for message in messages]
        self.archive(messages, thread)
        context = PolicyContext(self.namespace, thread, run=run)
        visible = in_window(ruled, memory_from(state))
        shown, block = self.with_recalled(ruled, in_prompt=visible, as_system=False, context=context)
        if block is not None:
            with self._lock:
                self._blocks[_call(messages, thread)] = RecalledBlock(None, block.passages)
                while len(self._blocks) > _BLOCKS:
                    del self._blocks[next(iter(self._blocks))]
        return {"llm_input_messages": shown}

    def _ruled(self, message: BaseMessage, lineage: Lineage) -> BaseMessage:
        """Return a message as the policies let the model read it, marked if it is not to be written."""
        decision = lineage.through(message) if self.policy.policies else None
        if decision is None:
            return message
        shown = message if decision.text is None else with_text(message, decision.text)
        if decision.working and not decision.quarantine:
            return shown
        return shown.model_copy(update={"additional_kwargs": {**shown.additional_kwargs, UNWRITTEN: True}})

    def post_model_hook(self, state: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        """Do for `create_react_agent(post_model_hook=…)` what the middleware does after a model call."""
        messages, thread = state["messages"], _thread(config)
        with self._lock:
            block = self._blocks.pop(_call(messages, thread), None)
        reply = messages[-1]
        if block is None or not isinstance(reply, AIMessage) or reply.id is None:
            self.archive(messages, thread)
            return {}
        told = with_report(reply, block)
        self.archive([*messages[:-1], told], thread)
        return {"messages": [told]}


def _call(messages: Sequence[BaseMessage], thread: str | None) -> _Call:
    """Name the turn that a model call belongs to: by its thread and the newest user message."""
    return thread, next((m.id for m in reversed(messages) if isinstance(m, HumanMessage)), None)


def _thread(config: RunnableConfig) -> str | None:
    thread: str | None = config.get("configurable", {}).get("thread_id")
    return thread
