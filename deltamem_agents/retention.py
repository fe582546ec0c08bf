"""Ask the policies about each message once, for every tier: what is written, faded, redacted, kept out."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from backbone import DeltaMemError
from deltamem_agents._effects import Effect, Steps, ado, blocking, do
from deltamem_agents._measuring import Measure, MessageSignals, forgiving
from deltamem_agents._turn import TurnRequest
from deltamem_agents.decided import TAINTED, Kept, Said, as_decided, decided_from_bytes, decided_to_bytes, said_of
from deltamem_agents.lineage import made_from
from deltamem_agents.messages import is_written, to_entries, with_text
from deltamem_agents.policy import MemoryPolicy, PolicyChain, PolicyContext, PolicyMessage, Retain, Signals
from deltamem_agents.policy import describe as described
from deltamem_agents.policy.decisions import joined
from deltamem_agents.policy.hooks import as_left
from deltamem_agents.window import select_messages
from deltamem_agents.working_memory import WorkingMemory

__all__ = ["Retention", "RetentionCall"]

_log = logging.getLogger(__name__)
_REMEMBERED = 2_000

Similarity = Callable[[str, PolicyContext, str], float | None]


class Retention:
    """Hold the policies of a memory, and what they have lately decided.

    policy: one policy or a chain. namespace: whose memory it is. similarity: says how near a text (of a message with
    this context and id) is to what the archive has; None where there is none. Threads may share it.
    """

    def __init__(
        self,
        policy: PolicyChain | MemoryPolicy,
        *,
        namespace: tuple[str, ...] = (),
        similarity: Similarity | None = None,
    ) -> None:
        self.policy = PolicyChain.of(policy)
        self.namespace = namespace
        self.before, self.after = self.policy.split()
        self.needs = frozenset(need for one in self.after.policies for need in one.needs)
        self._similarity = similarity
        self._lately: OrderedDict[tuple[str | None, str, int], Retain] = OrderedDict()
        self._lock = threading.Lock()
        self._deciding = [threading.RLock() for _ in range(64)]

    def call(self, kept: object, thread: str | None, run: Mapping[str, Any]) -> "RetentionCall":
        """Begin a model call. kept: what the thread's state has of decisions; run: the graph's run context.

        Raises StateFormatError for what is no such state.
        """
        return RetentionCall(self, PolicyContext(self.namespace, thread, run=run), decided_from_bytes(kept))

    def decision(self, message: PolicyMessage, thread: str | None, run: Mapping[str, Any]) -> Retain:
        """Return what was decided about a message, or decide now, once, without the working memory's signals."""
        with self._deciding[hash((thread, message.id)) % len(self._deciding)]:
            return self._decision(message, thread, run)

    def _decision(self, message: PolicyMessage, thread: str | None, run: Mapping[str, Any]) -> Retain:
        known = self.lately(message, thread)
        if known is None:
            context = PolicyContext(self.namespace, thread, run=run)
            known = self.before.retain(message, Signals(context=context))
            if self.after.policies:
                left = as_left(message, known)
                similar = self.similarity(left, context) if known.archive else None
                rest = self.after.retain(left, Signals(similarity=similar, context=context))
                known = joined(known, rest) if self.before.policies else rest
            self.remember(message, thread, known)
        return known

    def lately(self, message: PolicyMessage, thread: str | None) -> Retain | None:
        """Return what this process has decided about a message, as long as it remembers."""
        with self._lock:
            return self._lately.get((thread, message.id, hash((message.text, message.calls)))) if message.id else None

    def remember(self, message: PolicyMessage, thread: str | None, decision: Retain) -> None:
        """Keep a decision under the message's text, and under the text that it is left with."""
        if not message.id:
            return
        with self._lock:
            for text in {message.text, message.text if decision.text is None else decision.text}:
                self._lately[thread, message.id, hash((text, message.calls))] = decision
            while len(self._lately) > _REMEMBERED:
                self._lately.popitem(last=False)

    def similarity(self, message: PolicyMessage, context: PolicyContext) -> float | None:
        """Say how near a message is to what the archive has, if a policy asks and there is an archive."""
        if self._similarity is None or "similarity" not in self.needs:
            return None
        try:
            return self._similarity(message.text, context, message.id)
        except DeltaMemError as error:
            _log.warning("similarity to the archive is not known: %s", type(error).__name__)
            return None


class RetentionCall:
    """Decide about the messages of one model call, or of a batch of them, and about the reply.

    decided: what the thread's checkpoint keeps. changed: what has become of messages whose text was redacted, by the
    names of those.
    """

    def __init__(self, retention: Retention, context: PolicyContext, decided: Mapping[bytes, Kept]) -> None:
        self.decided = dict(decided)
        self.changed: dict[bytes, BaseMessage] = {}
        self._retention = retention
        self._context = context
        self._last: tuple[TurnRequest, Measure] | None = None

    def settle(self, request: TurnRequest, measure: Measure) -> TurnRequest:
        """Return the request as the policies leave it; raises what reading the request's memory or prompt raises."""
        return do(self._settle(request, measure))

    async def asettle(self, request: TurnRequest, measure: Measure) -> TurnRequest:
        """Settle without blocking the event loop; hooks that are `async def` run in it."""
        return await ado(self._settle(request, measure))

    def settle_reply(self, reply: BaseMessage, memory: bytes | str | None) -> BaseMessage:
        """Return the reply as the policies leave it; memory: what the turn has left."""
        return do(self._settle_reply(reply, memory))

    async def asettle_reply(self, reply: BaseMessage, memory: bytes | str | None) -> BaseMessage:
        """Settle the reply without blocking the event loop."""
        return await ado(self._settle_reply(reply, memory))

    def to_bytes(self, messages: Sequence[BaseMessage], memory: bytes | str | None) -> bytes:
        """Write what is to be kept: decisions about these messages, but for those that this memory has absorbed.

        Give the memory that the call began with: a checkpoint has the decisions that led to its own, so that the call
        can be made again from it and the one before.
        """
        absorbed = set() if memory is None else set(WorkingMemory.from_bytes(memory).digests)
        left = said_of([self.changed.get(one.name, one.message) for one in said_of(messages)])
        waiting = {one.digest for one in left} - absorbed
        # What the model read may say something else, where other middleware shortens it.
        read = () if self._last is None else said_of(self._last[0].messages)
        tainted = any(kept.quarantined for kept in self.decided.values())
        decided = {**self.decided, TAINTED: Kept(quarantined=True)} if tainted else self.decided
        return decided_to_bytes(decided, {TAINTED, *(one.name for one in (*left, *read) if one.digest in waiting)})

    def _settle(self, request: TurnRequest, measure: Measure) -> Steps[TurnRequest]:
        memory = None if request.memory is None else WorkingMemory.from_bytes(request.memory)
        entries = to_entries(request.messages)
        digests, forgot = ((), False) if memory is None else (memory.digests, memory.forgot_digests)
        selection = select_messages(entries, digests, forgot_digests=forgot)
        shown = [i for i in selection.indices if entries[i].role != "system"]  # what was absorbed may be edited since
        # A batch settles several requests at once, and none may take what another has half decided for decided.
        mine = RetentionCall(self._retention, self._context, self.decided)
        mine.changed.update(self.changed)
        settled = yield from mine._decide(request, shown, measure)
        self.changed.update(mine.changed)  # before what says that there may be a change
        self.decided.update(mine.decided)
        self._last = settled, measure
        return settled

    def _settle_reply(self, reply: BaseMessage, memory: bytes | str | None) -> Steps[BaseMessage]:
        if self._last is None or not isinstance(reply, AIMessage) or reply.id is None:
            return reply
        request, measure = self._last
        longer = replace(request, messages=(*request.messages, reply), memory=memory)
        settled = yield from self._decide(longer, [len(request.messages)], forgiving(measure))
        return settled.messages[-1]

    def _decide(self, request: TurnRequest, shown: Sequence[int], measure: Measure) -> Steps[TurnRequest]:
        """Ask the policies that need no signals about what is new, then measure it, then ask the others."""
        retention, thread = self._retention, self._context.thread
        said = said_of(request.messages)
        messages, pending = list(request.messages), dict[int, tuple[PolicyMessage, Retain]]()
        for index in shown:
            digest, name, message = said[index]
            if name not in self.decided and digest in self.decided:  # named as older versions did
                self.decided[name] = self.decided[digest]
            if name in self.decided:
                messages[index] = self.changed.get(name, message)
            if name in self.decided or not is_written(message):
                continue
            seen = described(message, trust=made_from(said[: index + 1], self.decided, request.memory))
            decision = retention.lately(seen, thread)
            if decision is None:
                decision = yield _asked(retention.before, seen, Signals(context=self._context))
                pending[index] = seen, decision
            messages[index] = self._apply(name, message, decision)
        request = self._left(said, replace(request, messages=tuple(messages)))
        if pending:
            request = self._left(said, (yield from self._decide_with_signals(request, said, pending, measure)))
        return as_decided(request, self.decided)

    def _left(self, said: Sequence[Said], request: TurnRequest) -> TurnRequest:
        """Let what was decided about messages hold for what is left of them in a request, which has other names."""
        for old, new in zip(said, said_of(request.messages), strict=True):
            if old.name in self.decided:
                self.decided[new.name] = self.decided[old.name]
        return request

    def _decide_with_signals(
        self,
        request: TurnRequest,
        said: Sequence[Said],
        pending: Mapping[int, tuple[PolicyMessage, Retain]],
        measure: Measure,
    ) -> Steps[TurnRequest]:
        retention, messages = self._retention, list(request.messages)
        entries = to_entries(messages)
        signals: Mapping[bytes, MessageSignals] = {}
        if "surprise" in retention.needs:
            wanted = frozenset(entries[index].digest for index in pending)
            signals = yield blocking(lambda: measure(as_decided(request, self.decided), wanted))
        for index, (seen, decision) in pending.items():
            digest = entries[index].digest
            trust = made_from(said[: index + 1], self.decided, request.memory)
            if trust < seen.trust:  # what stands before it has been quarantined since
                seen = replace(seen, trust=trust)  # noqa: PLW2901
                decision = yield _asked(retention.before, seen, Signals(context=self._context))  # noqa: PLW2901
            if retention.after.policies:
                left, similar = as_left(seen, decision), None
                if decision.archive:
                    similar = yield blocking(partial(retention.similarity, left, self._context))
                found = signals.get(digest)
                surprise, gate = (None, None) if found is None else found
                told = Signals(surprise, gate, similar, self._context)
                rest = yield _asked(retention.after, left, told)
                decision = joined(decision, rest) if retention.before.policies else rest  # noqa: PLW2901
            retention.remember(seen, self._context.thread, decision)
            messages[index] = self._apply(said[index].name, messages[index], decision)
        return replace(request, messages=tuple(messages))

    def _apply(self, name: bytes, message: BaseMessage, decision: Retain) -> BaseMessage:
        """Note what was decided about a message, and return it as it is from now on."""
        self.decided[name] = Kept.of(decision)
        if decision.text is None or decision.text == message.text:
            return message
        self.changed[name] = with_text(message, decision.text)
        return self.changed[name]


def _asked(chain: PolicyChain, message: PolicyMessage, signals: Signals) -> Effect:
    return Effect(lambda: chain.retain(message, signals), lambda: chain.aretain(message, signals))
