"""Decide what goes: what was asked for, less what a policy keeps."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from langchain_core.messages import BaseMessage
from sqlalchemy import Engine

from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.records import content_hash
from deltamem_agents.forgetting.fingerprints import needles_of, pieces_of
from deltamem_agents.forgetting.histories import thread_messages, whole_units
from deltamem_agents.forgetting.plan import Erased, Plan
from deltamem_agents.forgetting.receipt import Held
from deltamem_agents.forgetting.rows import CheckpointRows
from deltamem_agents.forgetting.selection import Target, Wanted, find_items, find_records, item_texts, known_threads
from deltamem_agents.policy import Forget, PolicyChain, PolicyContext, describe

__all__ = ["make_plan"]


def make_plan(
    engine: Engine,
    rows: CheckpointRows | None,
    policy: PolicyChain,
    wanted: Wanted,
    *,
    reason: str,
    actor: str,
    secure: bool,
) -> Plan:
    """Return what goes from every tier; nothing is changed yet.

    rows: the checkpoints, None where no checkpointer was given.
    """
    with engine.connect().execution_options(**READ_ONLY) as connection:
        targets = find_records(connection, wanted)
        items = find_items(connection, wanted)
        texts = item_texts(connection, items)
        threads, own = known_threads(connection, wanted)
    draft = _Draft(policy, wanted)
    for target in targets:
        draft.ask(target)
    if rows is not None:
        for thread in _threads(rows, wanted, targets, threads):
            draft.add_thread(thread, thread_messages(rows, thread), alone=thread in own | {wanted.thread})
    texts += draft.texts
    return Plan(
        owner=wanted.owner,
        reason=reason,
        actor=actor,
        secure=secure,
        records=tuple(draft.records),
        detached=tuple(draft.detached),
        items=tuple(items),
        messages={thread: tuple(sorted(names)) for thread, names in sorted(draft.messages.items())},
        whole=tuple(draft.whole),
        erased=tuple(draft.erased),
        held=tuple(draft.held),
        needles=tuple((n.text, n.size, n.start, n.whole) for n in needles_of(texts)),
        texts=len(texts),
        short=sum(not pieces_of(text.encode("utf-8", "surrogatepass")) for text in texts),
    )


def _threads(rows: CheckpointRows, wanted: Wanted, targets: Iterable[Target], known: Collection[str]) -> list[str]:
    """Return the threads whose checkpoints have to be looked at."""
    said = {thread for target in targets for thread, _ in target.places}
    if wanted.thread is not None:
        said = {wanted.thread}
    elif wanted.subject is None:
        # An id or a text may be of a message that was never archived.
        said |= set(known)
    return [thread for thread in rows.threads() if thread in said]


@dataclass
class _Draft:
    """Gather what goes while the policies are asked about it."""

    policy: PolicyChain
    wanted: Wanted
    records: list[str] = field(default_factory=list)
    detached: list[tuple[str, str]] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    erased: list[Erased] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    messages: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _archived: set[tuple[str, str]] = field(default_factory=set)
    _kept: set[tuple[str, str]] = field(default_factory=set)

    def ask(self, target: Target) -> bool:
        """Ask the policies about a record or message, and note what becomes of it."""
        thread = target.places[0][0] if target.places else None
        context = PolicyContext(target.namespace or self.wanted.owner, thread)
        decision = self.policy.forget(target, context)
        digest = content_hash(target.text)
        if target.archived:
            self._archived |= set(target.places)
        if decision.action == "keep":
            self.held.append(Held(id=target.id, digest=digest, reason=decision.reason, policy=decision.policy))
            self._kept |= set(target.places)
            return False
        self._note(target, digest, thread, decision)
        return True

    def add_thread(self, thread: str, found: dict[str, BaseMessage], *, alone: bool) -> None:
        """Decide about the messages of a thread; the thread goes as a whole if all of it does, and it is alone here."""
        chosen = {name for said, name in self._archived - self._kept if said == thread}
        for name, message in found.items():
            if (thread, name) in self._archived:
                continue
            if self.wanted.wants(name, message) and self.ask(_as_target(name, message, thread)):
                chosen.add(name)
        kept = {name for said, name in self._kept if said == thread}
        if self.wanted.everything and not kept and alone:
            self.whole.append(thread)
            self.messages.pop(thread, None)
            return
        units = whole_units(found, chosen)
        # A tool call and its result go together, unless one of them is kept.
        going = chosen if units & kept else units
        for name in going - chosen:
            self.texts.append(found[name].text)
        # One that no checkpoint has any more may still be in a memory.
        self.messages[thread] = going | chosen
        if not self.messages[thread]:
            del self.messages[thread]

    def _note(self, target: Target, digest: str, thread: str | None, decision: Forget) -> None:
        self.texts.append(target.text)
        name = target.id if target.archived else None
        about = {"policy": decision.policy, "version": decision.version, "reason": decision.reason}
        self.erased.append(Erased(digest=digest, record=name, thread=thread, **about))
        if target.detached and self.wanted.thread is not None:
            self.detached.append((target.id, self.wanted.thread))
        elif target.archived:
            self.records.append(target.id)


def _as_target(name: str, message: BaseMessage, thread: str) -> Target:
    """Show a message that only checkpoints hold as a record."""
    said = describe(message)
    return Target(name, said.text, said.source, int(said.trust), places=((thread, name),))
