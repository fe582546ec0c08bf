"""Ask one hook of one policy; what fails counts as the strictest decision."""

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Awaitable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from deltamem_agents.policy.decisions import Decision, Forget, Present, Retain, Retrieve, redacted
from deltamem_agents.policy.hooks import MemoryPolicy

__all__ = ["Question", "in_thread"]

_log = logging.getLogger(__name__)

_CLOSED: Final[dict[str, Decision]] = {
    "retain": Retain(working=False, archive=False, reason="not written"),
    "retrieve": Retrieve(allowed=False, reason="nothing found"),
    "present": Present(action="withhold", reason="not shown"),
    "forget": Forget(action="keep", reason="not erased"),
}


@dataclass(frozen=True, slots=True)
class Question:
    """Hold one hook of one policy, about to be called."""

    policy: MemoryPolicy
    hook: str
    arguments: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Give the policy's name."""
        return self.policy.name or type(self.policy).__name__

    def call(self) -> Any:
        """Call the hook, and return what it returns."""
        return getattr(self.policy, self.hook)(*self.arguments)

    def answered(self, answer: object) -> Decision:
        """Return a policy's answer under its name; raises TypeError if it is no decision of this hook."""
        wanted = type(_CLOSED[self.hook])
        if not isinstance(answer, wanted):
            raise TypeError(f"{self.hook} must return {wanted.__name__}, got {type(answer).__name__}")
        if isinstance(answer, (Retain, Retrieve, Present)):
            about = self.arguments[0]
            redacted(about if isinstance(about, str) else about.text, answer.redactions)
        return answer.model_copy(update={"policy": self.name, "version": self.policy.version, "parts": ()})

    def failed(self, error: BaseException) -> Decision:
        """Return the strictest decision; neither it nor the log has the error's message, which may quote the text."""
        _log.warning("policy %s failed in %s: %s; failing closed", self.name, self.hook, type(error).__name__)
        closed = _CLOSED[self.hook]
        reason = f"{closed.reason}: {self.name} failed with {type(error).__name__}"
        return closed.model_copy(update={"reason": reason, "policy": self.name, "version": self.policy.version})


def in_thread(question: Question) -> "Future[Any]":
    """Call a hook in a thread of its own: one that hangs holds up neither the caller nor the end of the program."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            answer = context.run(question.call)
            future.set_result(asyncio.run(_awaited(answer)) if inspect.isawaitable(answer) else answer)
        except BaseException as error:
            future.set_exception(error if isinstance(error, Exception) else RuntimeError(type(error).__name__))

    threading.Thread(target=work, name=f"policy-{question.name}", daemon=True).start()
    return future


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer
