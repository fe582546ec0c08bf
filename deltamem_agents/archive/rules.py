"""Ask policies about what is written to a store, before anything of it is hashed, indexed, stored or logged."""

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, NoReturn

from sqlalchemy import Engine

from deltamem_agents.archive.errors import PolicyRefusedError
from deltamem_agents.archive.logged import by_policy, by_program, redactions, refused, retained
from deltamem_agents.archive.records import Namespace, NewRecord, Record, content_hash, namespace_key
from deltamem_agents.archive.texts import lay_out, with_redactions
from deltamem_agents.audit import AuditEvent, append_all
from deltamem_agents.policy import Forget, MemoryPolicy, PolicyChain, PolicyContext, PolicyMessage, Retain, Signals
from deltamem_agents.policy.decisions import joined
from deltamem_agents.policy.hooks import RecordLike, as_left
from deltamem_agents.policy.trust import QUARANTINED
from deltamem_agents.running import current_place, trust_read

__all__ = ["RuledItem", "Rules", "refuse", "ruled"]

_PROGRAM = "program"


class RuledItem(NamedTuple):
    """Hold an item's value as the policies leave it, None if they refuse it, its longest life, and the log's events."""

    value: dict[str, Any] | None
    ttl: timedelta | None
    events: list[AuditEvent]


class Rules:
    """Hold the policies of a store, each for a namespace and all below it, and ask them about what a program does."""

    def __init__(self) -> None:
        self._chains: dict[Namespace, list[PolicyChain]] = {}
        self._holding: list[PolicyChain] = []

    def add(self, policy: PolicyChain | MemoryPolicy | None, namespace: Namespace = ()) -> PolicyChain:
        """Ask a policy from now on; () is every namespace. Return it behind those that rule the namespace already.

        What is among those is asked in their place.
        """
        if namespace:
            namespace_key(namespace)
        own, others = PolicyChain.of(policy), self.chains(namespace)
        if own.policies:
            _note(self._chains.setdefault(namespace, []), own.policies, own.timeout)
        holding = [one for one in own.policies if getattr(one.forget, "__func__", None) is not MemoryPolicy.forget]
        _note(self._holding, holding, own.timeout)
        if not others:
            return own
        asked: list[MemoryPolicy] = []
        for chain in (*others, own):
            asked += [one for one in chain.policies if not any(_same(one, known) for known in asked)]
        return PolicyChain(asked, timeout=(own if own.policies else others[0]).timeout)

    def chains(self, namespace: Namespace) -> list[PolicyChain]:
        """Return the policies of a namespace in the order in which they are asked: those of the whole store first."""
        return [one for depth in range(len(namespace) + 1) for one in self._chains.get(namespace[:depth], ())]

    @property
    def hold(self) -> Callable[[Record], Forget | None] | None:
        """Return what asks the policies of all namespaces whether one keeps a record that has expired; None: none can.

        It returns the decision to keep it, or None.
        """
        return self._hold if self._holding else None

    def forgetting(self, policy: PolicyChain) -> Callable[[RecordLike, PolicyContext], Forget]:
        """Return what asks a policy, and all that rule a record's namespace, whether it may go: one keeps it."""

        def ask(record: RecordLike, context: PolicyContext) -> Forget:
            ruling = [chain for chain in self.chains(context.namespace) if not _within(chain, policy)]
            decisions = [chain.forget(record, context) for chain in (policy, *ruling)]
            return next((one for one in decisions if one.action == "keep"), decisions[0])

        return ask

    def record(self, namespace: Namespace, new: NewRecord) -> tuple[NewRecord | None, list[AuditEvent]]:
        """Return a text as the policies let it in, None if they refuse it, and what the log is to say of that."""
        new = dataclasses.replace(new, trust=min(new.trust, trust_read()))
        created = new.created or datetime.now(UTC)
        seen = PolicyMessage(new.text, new.source, new.message_id or "", new.trust, new.tags, created)
        decision = self._retain(namespace, seen, new.thread)
        if decision is None:
            return new, [by_program("write", "added", detail={"source": new.source})]
        place, kept = current_place().checkpoint, ruled(new, decision)
        if kept is None:
            return None, refused(new, decision, place, actor=_PROGRAM)[:1]  # nothing of it is kept, redacted or not
        return kept, retained(new, kept, decision, place, actor=_PROGRAM)

    def item(self, namespace: Namespace, key: str, value: dict[str, Any], source: str = "agent") -> RuledItem:
        """Decide about an item by all that stands in it; what would have to wait in quarantine is refused."""
        laid_out, place = lay_out(key, value), current_place()
        seen = PolicyMessage("".join(piece.text for piece in laid_out), source, trust=trust_read())
        decision = self._retain(namespace, seen, place.thread) or Retain(reason="no policy")
        left = with_redactions(key, value, laid_out, decision)
        if left is None:
            decision = decision.model_copy(update={"reason": f"names in it cannot be redacted: {decision.reason}"})
        text, fields = f"{seen.text}\n{decision.text or ''}", {"actor": _PROGRAM, "checkpoint": place.checkpoint}
        if left is None or not decision.archive or decision.quarantine:
            # A key that may hold what was redacted is not told, not even by its digest, which could be guessed.
            told = {} if decision.text is not None else {"item": content_hash(key)}
            refusal = by_policy("refuse", decision, text, **fields, detail=told)
            return RuledItem(None, None, [refusal])
        written = by_policy("write", decision, text, **fields)
        return RuledItem(left, decision.ttl, [written, *redactions(decision, text, {}, fields)])

    def _retain(self, namespace: Namespace, seen: PolicyMessage, thread: str | None) -> Retain | None:
        """Compose what the policies of a namespace decide; None: there are none."""
        signals = Signals(context=PolicyContext(namespace, thread, run=current_place().run))
        decision: Retain | None = None
        for chain in self.chains(namespace):
            asked = chain.retain(seen, signals)
            seen, decision = as_left(seen, asked), asked if decision is None else joined(decision, asked)
        return decision

    def _hold(self, record: Record) -> Forget | None:
        context = PolicyContext(record.namespace, record.thread)
        decisions = (chain.forget(record, context) for chain in self._holding)
        return next((decision for decision in decisions if decision.action == "keep"), None)


def ruled(new: NewRecord, decision: Retain) -> NewRecord | None:
    """Return a record as a decision lets it into the archive, None if it does not."""
    if not decision.archive:
        return None
    held = (QUARANTINED,) if decision.quarantine else ()
    lives = [ttl for ttl in (new.ttl, decision.ttl) if ttl is not None]
    return dataclasses.replace(
        new,
        text=new.text if decision.text is None else decision.text,
        # What the text was made from has lowered the decision's trust already.
        trust=new.trust if decision.trust is None else decision.trust,
        tags=tuple(dict.fromkeys((*new.tags, *decision.tags, *held))),
        ttl=min(lives, default=None),
    )


def refuse(engine: Engine, refusals: Sequence[tuple[Namespace, AuditEvent]]) -> NoReturn:
    """Log refusals, in a transaction of its own, and raise PolicyRefusedError about the first."""
    with engine.begin() as connection:
        for namespace in sorted({namespace for namespace, _ in refusals}, key=namespace_key):
            append_all(connection, namespace, [event for where, event in refusals if where == namespace])
    first = refusals[0][1]
    raise PolicyRefusedError(
        f"the policy {first.policy} refuses what was to be written: {first.reason}; nothing of the call is stored"
    )


def _note(known: list[PolicyChain], policies: Sequence[MemoryPolicy], timeout: float | None) -> None:
    """Add a chain of these policies, unless there are none or they are known."""
    if policies and not any(_alike(one.policies, policies) for one in known):
        known.append(PolicyChain(policies, timeout=timeout))


def _alike(these: Sequence[MemoryPolicy], those: Sequence[MemoryPolicy]) -> bool:
    """Tell whether policies decide alike: a program that makes a memory for each request makes them anew each time."""
    return len(these) == len(those) and all(map(_same, these, those))


def _within(chain: PolicyChain, policy: PolicyChain) -> bool:
    """Tell whether all of a chain's policies are asked as part of another."""
    return all(any(_same(one, mine) for mine in policy.policies) for one in chain.policies)


def _same(one: MemoryPolicy, other: MemoryPolicy) -> bool:
    return one == other or (type(one) is type(other) and hasattr(one, "__dict__") and vars(one) == vars(other))
