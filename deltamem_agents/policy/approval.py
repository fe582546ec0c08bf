"""Ask a person about what is in quarantine, by a LangGraph interrupt that a checkpointer keeps."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NotRequired, Protocol, TypedDict

from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain.agents.middleware.types import OmitFromSchema
from langchain_core.messages import BaseMessage
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from backbone import ConfigError
from deltamem_agents.policy.decisions import Retain
from deltamem_agents.policy.hooks import PolicyMessage
from deltamem_agents.policy.trust import QUARANTINED

__all__ = ["ApprovalState", "Quarantine", "Question", "RequireApproval", "approved"]


class Question(TypedDict):
    """Hold what a person needs to know of a record in quarantine."""

    id: str
    message: str | None
    source: str
    reason: str | None
    text: str


class Quarantine(Protocol):
    """Describe what can be asked for what waits, and told what a person has said; HybridMemory is one."""

    def waiting(self, messages: Sequence[BaseMessage], thread: str) -> list[Question]:
        """Take a thread's messages, and return its records in quarantine."""

    def settle(self, answers: Mapping[str, str], messages: Sequence[BaseMessage], thread: str) -> None:
        """Approve or reject records, by id; those that are no longer in quarantine stay as they are."""

    def without_rejected(self, messages: Sequence[BaseMessage], thread: str) -> list[BaseMessage]:
        """Return replacements for those of the messages that a person has rejected."""


class ApprovalState(AgentState[Any]):
    """Add to an agent's state which records a person was asked about; neither input nor output has it."""

    delta_mem_asked: NotRequired[Annotated[list[str], OmitFromSchema(input=True, output=True)]]


class RequireApproval(AgentMiddleware[ApprovalState, Any, Any]):
    """Stop a turn before its model call where something waits in quarantine, and go on with a person's answer.

    Put it before the memory's own middleware: create_agent(middleware=[RequireApproval(memory), *memory.middleware()]).
    The interrupt's value is {"quarantined": [{"id", "message", "source", "reason", "text"}, …]}. Resume with
    Command(resume="approve") or "reject" for all, or {"decisions": {id: "approve" | "reject"}}. What is approved can
    be recalled from then on, at the trust it has, and be written to the working memory; what is rejected leaves the
    archive and the state, before the model has read it; what has no answer stays in quarantine, and is not asked about
    again. Answers are applied once, however often the node runs.
    """

    state_schema = ApprovalState

    def __init__(self, memory: Quarantine | None = None) -> None:
        """Take the HybridMemory whose quarantine is reviewed; `review` alone needs none."""
        super().__init__()
        self._memory = memory

    def before_model(self, state: ApprovalState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Ask about what came into quarantine since the last model call.

        Raises ConfigError without a memory, or in a graph without threads.
        """
        memory, thread = self._parts(runtime)
        asked, pending = state.get("delta_mem_asked", []), memory.waiting(state["messages"], thread)
        answers = _ask(pending, asked)
        memory.settle(answers, state["messages"], thread)
        return _update(asked, answers, memory.without_rejected(state["messages"], thread))

    async def abefore_model(self, state: ApprovalState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Ask, without blocking the event loop."""
        memory, thread = self._parts(runtime)
        asked = state.get("delta_mem_asked", [])
        pending = await asyncio.to_thread(memory.waiting, state["messages"], thread)
        answers = _ask(pending, asked)
        await asyncio.to_thread(memory.settle, answers, state["messages"], thread)
        return _update(asked, answers, await asyncio.to_thread(memory.without_rejected, state["messages"], thread))

    def review(self, message: PolicyMessage, decision: Retain) -> Retain:
        """Return a decision after a person's answer, or as it is if nothing is quarantined; for nodes of your own.

        Interrupts the graph with {"policy", "reason", "source", "text"}; resume with Command(resume="approve") to write
        the message, "reject" to write it nowhere, or anything else to leave it in quarantine.
        """
        if not decision.quarantine:
            return decision
        text = message.text if decision.text is None else decision.text
        answer = interrupt(
            {"policy": decision.policy, "reason": decision.reason, "source": message.source, "text": text}
        )
        if answer == "approve":
            return approved(decision)
        if answer == "reject":
            return decision.model_copy(
                update={"quarantine": False, "working": False, "archive": False, "reason": "rejected"}
            )
        return decision

    def _parts(self, runtime: Runtime[Any]) -> tuple[Quarantine, str]:
        thread = None if runtime.execution_info is None else runtime.execution_info.thread_id
        if self._memory is None or thread is None:
            raise ConfigError(
                "RequireApproval needs a memory, RequireApproval(memory), and an agent with a checkpointer"
            )
        return self._memory, thread


def approved(decision: Retain) -> Retain:
    """Return a decision without the quarantine; what other policies keep from the working memory stays out of it."""
    writing = all(part.working or part.quarantine for part in decision.parts if isinstance(part, Retain))
    tags = tuple(tag for tag in decision.tags if tag != QUARANTINED)
    return decision.model_copy(update={"quarantine": False, "working": writing, "tags": tags, "reason": "approved"})


def _ask(pending: Sequence[Question], asked: Sequence[str]) -> dict[str, str]:
    """Interrupt with what was not asked about before; return an answer for each, "later" where there is none."""
    fresh = [one for one in pending if one["id"] not in asked]
    if not fresh:
        return {}
    answer: Any = interrupt({"quarantined": fresh})
    # Not the bare mapping: LangGraph would take ids of 32 hexadecimal digits for those of its interrupts.
    each: Mapping[str, Any] | None = answer.get("decisions", {}) if isinstance(answer, Mapping) else None
    return {one["id"]: str(answer if each is None else each.get(one["id"], "later")) for one in fresh}


def _update(asked: Sequence[str], answers: Mapping[str, str], replaced: list[BaseMessage]) -> dict[str, Any] | None:
    update: dict[str, Any] = {"messages": replaced} if replaced else {}
    if answers:
        update["delta_mem_asked"] = [*asked, *answers]
    return update or None
