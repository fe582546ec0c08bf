"""Ask policies in order, keep the strictest decision, and fail closed."""

import asyncio
import dataclasses
import inspect
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self, TypeVar, cast

from backbone import ConfigError
from deltamem_agents.policy.asking import Question, in_thread
from deltamem_agents.policy.decisions import Decision, Forget, Present, Retain, Retrieve, Trust, redacted, strictest
from deltamem_agents.policy.hooks import MemoryPolicy, PolicyContext, PolicyMessage, RecordLike, Signals

__all__ = ["PolicyChain"]


@dataclass(frozen=True, slots=True)
class _Masked:
    """A record as the policies before left its text."""

    record: RecordLike
    text: str

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def source(self) -> str:
        return self.record.source

    @property
    def trust(self) -> int:
        return self.record.trust

    @property
    def tags(self) -> Sequence[str]:
        return self.record.tags

    @property
    def created(self) -> datetime:
        return self.record.created

    @property
    def expires(self) -> datetime | None:
        return self.record.expires


D = TypeVar("D", bound=Decision)
# Yields the hooks to call, is sent their decisions, and returns the composed one.
Steps = Generator[Question, Decision, D]


class PolicyChain:
    """Compose policies: each is asked in order, and the strictest decision holds.

    A policy sees the text as the ones before it left it. A hook that raises, takes longer than the timeout, or returns
    something else, counts as the strictest decision there is: nothing is written, found or shown, and nothing erased.
    That is logged with the policy's name and the kind of error, and without any text.
    """

    def __init__(self, policies: Sequence[MemoryPolicy], *, timeout: float | None = 1.0) -> None:
        """Take policies in the order in which they are asked.

        timeout: seconds for each hook; a hook runs in a thread of its own for that, which is left behind if it never
        ends. None waits as long as it takes, in the caller's thread. Raises ConfigError for what is no policy.
        """
        if timeout is not None and not timeout > 0:
            raise ConfigError(f"a policy's timeout is a number of seconds above 0, or None, got {timeout!r}")
        self.policies = tuple(policies)
        for one in self.policies:
            if not isinstance(one, MemoryPolicy):
                raise ConfigError(f"a PolicyChain takes MemoryPolicy objects, one after the other; got {one!r}")
        self.timeout = timeout

    @classmethod
    def of(cls, policy: "Self | MemoryPolicy | None") -> Self:
        """Return a chain itself, one of a single policy, or one that restricts nothing for None.

        Raises ConfigError for anything else.
        """
        if isinstance(policy, cls):
            return policy
        if policy is not None and not isinstance(policy, MemoryPolicy):
            raise ConfigError(
                f"a policy is a MemoryPolicy, a PolicyChain of several, or None; got {type(policy).__name__}"
            )
        return cls([] if policy is None else [policy])

    def split(self) -> "tuple[PolicyChain, PolicyChain]":
        """Return the policies before the first that looks at signals, and that one with all after it."""
        at = next((place for place, policy in enumerate(self.policies) if policy.needs), len(self.policies))
        before, after = self.policies[:at], self.policies[at:]
        return PolicyChain(before, timeout=self.timeout), PolicyChain(after, timeout=self.timeout)

    def retain(self, message: PolicyMessage, signals: Signals | None = None) -> Retain:
        """Decide about a message; `text` of the decision is set if it was redacted."""
        return self._run(self._retain(message, signals or Signals()))

    async def aretain(self, message: PolicyMessage, signals: Signals | None = None) -> Retain:
        """Decide as retain does; hooks that are `async def` run in the caller's event loop."""
        return await self._arun(self._retain(message, signals or Signals()))

    def retrieve(self, query: str, context: PolicyContext | None = None) -> Retrieve:
        """Decide about a search; `query` of the decision is set if it was redacted."""
        return self._run(self._retrieve(query, context or PolicyContext()))

    async def aretrieve(self, query: str, context: PolicyContext | None = None) -> Retrieve:
        """Decide as retrieve does; hooks that are `async def` run in the caller's event loop."""
        return await self._arun(self._retrieve(query, context or PolicyContext()))

    def present(self, record: RecordLike, context: PolicyContext | None = None) -> Present:
        """Decide about a record that was found; `text` of the decision is set if it was masked."""
        return self._run(self._present(record, context or PolicyContext()))

    async def apresent(self, record: RecordLike, context: PolicyContext | None = None) -> Present:
        """Decide as present does; hooks that are `async def` run in the caller's event loop."""
        return await self._arun(self._present(record, context or PolicyContext()))

    def forget(self, record: RecordLike, context: PolicyContext | None = None) -> Forget:
        """Decide about a record that is to be erased."""
        return self._run(self._forget(record, context or PolicyContext()))

    async def aforget(self, record: RecordLike, context: PolicyContext | None = None) -> Forget:
        """Decide as forget does; hooks that are `async def` run in the caller's event loop."""
        return await self._arun(self._forget(record, context or PolicyContext()))

    def _retain(self, message: PolicyMessage, signals: Signals) -> Steps[Retain]:
        decisions: list[Retain] = []
        seen = message
        for policy in self.policies:
            decision = cast("Retain", (yield Question(policy, "retain", (seen, signals))))
            decisions.append(decision)
            tags = tuple(dict.fromkeys((*seen.tags, *decision.tags)))
            seen = dataclasses.replace(seen, text=redacted(seen.text, decision.redactions), tags=tags)
        composed = strictest(decisions or [Retain(reason="no policy")])
        if message.trust < Trust.HIGH:
            # Whatever the policies say, what was made from something is trusted no more than that.
            lowest = message.trust if composed.trust is None else min(message.trust, composed.trust)
            composed = composed.model_copy(update={"trust": lowest})
        return composed if seen.text == message.text else composed.model_copy(update={"text": seen.text})

    def _present(self, record: RecordLike, context: PolicyContext) -> Steps[Present]:
        decisions: list[Present] = []
        seen = record
        for policy in self.policies:
            decision = cast("Present", (yield Question(policy, "present", (seen, context))))
            if decision.redactions:
                seen = _Masked(record, redacted(seen.text, decision.redactions))
                decision = decision.model_copy(update={"action": "mask"}) if decision.action == "show" else decision
            decisions.append(decision)
        composed = strictest(decisions or [Present(reason="no policy")])
        return composed if seen is record else composed.model_copy(update={"text": seen.text})

    def _retrieve(self, query: str, context: PolicyContext) -> Steps[Retrieve]:
        decisions: list[Retrieve] = []
        seen = query
        for policy in self.policies:
            decisions.append(cast("Retrieve", (yield Question(policy, "retrieve", (seen, context)))))
            seen = redacted(seen, decisions[-1].redactions)
        composed = strictest(decisions or [Retrieve(reason="no policy")])
        return composed if seen == query else composed.model_copy(update={"query": seen})

    def _forget(self, record: RecordLike, context: PolicyContext) -> Steps[Forget]:
        decisions: list[Forget] = []
        for policy in self.policies:
            decision = yield Question(policy, "forget", (record, context))
            decisions.append(cast("Forget", decision))
        return strictest(decisions or [Forget(reason="no policy")])

    def _run(self, steps: Steps[D]) -> D:
        try:
            question = next(steps)
            while True:
                question = steps.send(self._ask(question))
        except StopIteration as done:
            return cast("D", done.value)

    async def _arun(self, steps: Steps[D]) -> D:
        try:
            question = next(steps)
            while True:
                question = steps.send(await self._aask(question))
        except StopIteration as done:
            return cast("D", done.value)

    def _ask(self, question: Question) -> Decision:
        try:
            if self.timeout is None and not inspect.iscoroutinefunction(getattr(question.policy, question.hook)):
                return question.answered(question.call())
            return question.answered(in_thread(question).result(self.timeout))
        except Exception as error:
            return question.failed(error)

    async def _aask(self, question: Question) -> Decision:
        try:
            if inspect.iscoroutinefunction(getattr(question.policy, question.hook)):
                return question.answered(await asyncio.wait_for(question.call(), self.timeout))
            if self.timeout is None:
                return question.answered(question.call())
            answer = asyncio.wrap_future(in_thread(question))
            return question.answered(await asyncio.wait_for(answer, self.timeout))
        except Exception as error:
            return question.failed(error)
