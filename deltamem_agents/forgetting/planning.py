"""Decide what goes: what was asked for, less what a policy keeps."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from langchain_core.messages import BaseMessage
from sqlalchemy import Engine

from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.logged import LEFT_OUT, without_quotes
from deltamem_agents.archive.records import content_hash
from deltamem_agents.forgetting.fingerprints import SHORTEST, needles_of, pieces_of
from deltamem_agents.forgetting.histories import whole_units
from deltamem_agents.forgetting.plan import Erased, Plan
from deltamem_agents.forgetting.receipt import Held
from deltamem_agents.forgetting.rollback import RolledBack
from deltamem_agents.forgetting.rows import CheckpointRows
from deltamem_agents.forgetting.said import Said, digest_of, spoken, traces
from deltamem_agents.forgetting.selection import (
    Target,
    Wanted,
    find_items,
    find_records,
    known_threads,
    message_target,
    require_own,
    text_target,
)
from deltamem_agents.forgetting.traces import find_traces
from deltamem_agents.policy import Forget, PolicyContext, RecordLike

__all__ = ["make_plan"]

Ask = Callable[[RecordLike, PolicyContext], Forget]


def make_plan(
    engine: Engine,
    rows: CheckpointRows | None,
    may_go: Ask,
    wanted: Wanted,
    *,
    reason: str,
    actor: str,
    secure: bool,
    rolled: RolledBack | None = None,
) -> Plan:
    """Return what goes from every tier; nothing is changed yet.

    rows: the checkpoints, None where no checkpointer was given. rolled: what a rollback takes from them.
    """
    draft = _asked(engine, rows, may_go, wanted, rolled)
    if rolled is not None:
        draft.texts += rolled.texts
    texts = [text for text in dict.fromkeys(draft.texts) if text]
    return Plan(
        owner=wanted.owner,
        reason=_without_texts(reason, (wanted.query, wanted.subject), texts),
        actor=actor,
        secure=secure,
        records=tuple(draft.records),
        detached=tuple(draft.detached),
        items=tuple(draft.items),
        traces=draft.left,
        messages={thread: tuple(sorted(names)) for thread, names in sorted(draft.messages.items())},
        values={thread: tuple(sorted(digests)) for thread, digests in sorted(draft.values.items())},
        stuck=tuple(draft.stuck),
        whole=tuple(draft.whole),
        rolled=() if rolled is None else rolled.named,
        erased=tuple(draft.erased),
        held=tuple(draft.held),
        needles=tuple((n.text, n.size, n.start, n.whole) for n in needles_of(texts)),
        texts=len(texts),
        short=sum(not pieces_of(text.encode("utf-8", "surrogatepass")) for text in texts),
    )


def _asked(
    engine: Engine, rows: CheckpointRows | None, may_go: Ask, wanted: Wanted, rolled: RolledBack | None
) -> "_Draft":
    """Ask the policies about everything that is wanted."""
    with engine.connect().execution_options(**READ_ONLY) as connection:
        require_own(connection, wanted)
        targets = find_records(connection, wanted)
        items = find_items(connection, wanted)
        threads, own = known_threads(connection, wanted)
        left = find_traces(connection, wanted)
    draft = _Draft(engine, may_go, wanted, left)
    for target in [*targets, *items]:
        draft.ask([target])
    meant = _threads(wanted, targets, threads)
    if rows is None and rolled is None:
        draft.leave(meant)
    elif rows is not None:
        for thread in (thread for thread in rows.threads() if thread in meant | {wanted.thread}):
            draft.add_thread(thread, Said(rows, rows.load(thread)), alone=thread in own | {wanted.thread})
    return draft


def _threads(wanted: Wanted, targets: Sequence[Target], known: Collection[str]) -> set[str]:
    """Return the threads whose checkpoints have to be looked at."""
    said = {thread for target in targets for thread, _ in target.places}
    # An id or a text may be of a message that was never archived.
    others = wanted.ids is None or wanted.ids - {target.id for target in targets}
    said |= set(known) if wanted.subject is None and others else set()
    return said if wanted.thread is None else said & {wanted.thread}


def _without_texts(reason: str, asked: Iterable[str | None], texts: Iterable[str]) -> str:
    """Return a reason as the audit log may hold it for good: without what is to be forgotten."""
    if any(word and len(word) >= SHORTEST and word.casefold() in reason.casefold() for word in asked):
        return LEFT_OUT
    for text in texts:
        reason = without_quotes(reason, text)
    return reason


@dataclass
class _Draft:
    """Gather what goes while the policies are asked about it."""

    engine: Engine
    may_go: Ask
    wanted: Wanted
    left: tuple[tuple[str, str, str], ...] = ()
    records: list[str] = field(default_factory=list)
    detached: list[tuple[str, str]] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    erased: list[Erased] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    messages: dict[str, set[str]] = field(default_factory=dict)
    values: dict[str, set[str]] = field(default_factory=dict)
    stuck: list[str] = field(default_factory=list)
    _archived: set[tuple[str, str]] = field(default_factory=set)
    _kept: set[tuple[str, str]] = field(default_factory=set)

    def ask(self, targets: Sequence[Target]) -> bool:
        """Ask the policies about what goes together or not at all, and note what becomes of it."""
        answers = self._answers(targets)
        self._note(answers)
        return bool(answers)

    def leave(self, threads: Collection[str]) -> None:
        """Note what of these threads is to go when their checkpoints are there."""
        for thread in threads:
            self.messages[thread] = {name for said, name in self._archived - self._kept if said == thread}

    def add_thread(self, thread: str, said: Said, *, alone: bool) -> None:
        """Decide about the messages of a thread; the thread goes as a whole if all of it does, and it is alone here."""
        chosen = {name for said, name in self._archived - self._kept if said == thread}
        for name, versions in said.messages.items():
            asked = [version for version in versions if self.wanted.wants(name, spoken(version.fields))]
            if (thread, name) in self._archived or not asked:
                continue
            # A record that is asked for is asked about by now, unless it lacks what the message says.
            unsaid, message = self.wanted.query is not None, asked[-1].message
            if self.ask(self._targets(thread, name, message) if unsaid else [message_target(name, message, thread)]):
                chosen.add(name)
        found = {name: versions[-1].message for name, versions in said.messages.items()}
        kept = {name for said, name in self._kept if said == thread}
        if self.wanted.everything and not kept and alone:
            self.whole.append(thread)
            going = set(found)
        else:
            # One that no checkpoint has any more may still be in a memory.
            going = chosen | self._companions(thread, found, chosen, kept)
            if going:
                self.messages[thread] = going
            self._add_values(thread, said, going)
        # A record may say less than its message: it has no tool calls, and may be redacted.
        for version in (version for name in going & found.keys() for version in said.messages[name]):
            self.texts += traces(version.fields)
            self.texts += [text for text in spoken(version.fields) if self.wanted.wants_text(text)]

    def _add_values(self, thread: str, said: Said, going: Collection[str]) -> None:
        """Decide about what says the query and is no message, such as another channel of the state."""
        goes, stays = ({text for name, versions in said.messages.items() if (name in going) is gone
                        for version in versions for text in spoken(version.fields)}
                       for gone in (True, False))  # fmt: skip
        for text, channels in said.texts.items():
            if not self.wanted.wants_text(text) or text in stays:
                continue
            # What a message says that goes has been asked about.
            if text in goes or self.ask([text_target(text, channels, thread)]):
                self.values.setdefault(thread, set()).add(digest_of(text))
        closed = [place for place, texts in said.closed.items() if any(map(self.wanted.wants_text, texts))]
        self.stuck += [f"{place} of thread {thread!r}" for place in closed]

    def _companions(
        self, thread: str, found: dict[str, BaseMessage], chosen: Collection[str], kept: Collection[str]
    ) -> set[str]:
        """Return the tool calls and results that make no sense without those chosen, unless one of them is kept."""
        names = whole_units(found, chosen) - {*chosen, *kept}
        asked = {name: self._answers(self._targets(thread, name, found[name])) for name in sorted(names)}
        held = {name for name, answers in asked.items() if not answers}
        going = names - whole_units(found, held | {*kept})
        for name in sorted(going):
            self._note(asked[name])
        return going

    def _targets(self, thread: str, name: str, message: BaseMessage) -> Sequence[Target]:
        """Describe a message by its record, all versions; a record that is other messages too is not to go with it."""
        wanted = Wanted(self.wanted.owner, frozenset({name}), thread=thread, namespace=self.wanted.namespace)
        with self.engine.connect().execution_options(**READ_ONLY) as connection:
            found = find_records(connection, wanted)
        place = (thread, name)
        own = [one for one in found if place in one.places]
        if not own:
            return [message_target(name, message, thread)]
        if all(not one.detached and {*one.places} <= {place} for one in found):
            return found
        return [replace(one, kind="message", places=(place,), detached=False) for one in own]

    def _answers(self, targets: Sequence[Target]) -> list[tuple[Target, Forget]]:
        """Ask the policies; return their leave to erase all of it, or nothing, and note why, if they keep any."""
        answers = []
        for target in targets:
            thread = target.places[0][0] if target.places else None
            decision = self.may_go(target, PolicyContext(target.namespace or self.wanted.owner, thread))
            if target.kind == "record":
                self._archived |= set(target.places)
            if decision.action == "erase":
                answers.append((target, decision))
                continue
            digest, reason = content_hash(target.text), without_quotes(decision.reason, target.text)
            self.held.append(Held(id=target.id, digest=digest, reason=reason, policy=decision.policy))
            self._kept |= set(target.places)
        return answers if len(answers) == len(targets) else []

    def _note(self, answers: Iterable[tuple[Target, Forget]]) -> None:
        for target, decision in answers:
            self.texts += target.parts or [target.text]
            self.erased.append(
                Erased(
                    digest=content_hash(target.text),
                    record=None if target.kind == "message" else target.id,
                    thread=target.places[0][0] if target.places else None,
                    policy=decision.policy,
                    version=decision.version,
                    reason=without_quotes(decision.reason, target.text),
                )
            )
            if target.kind == "item":
                self.items.append(target.id)
            elif target.detached and self.wanted.thread is not None:
                self.detached.append((target.id, self.wanted.thread))
            elif target.kind == "record":
                self.records.append(target.id)
