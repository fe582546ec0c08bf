"""Hold what is to be erased, without its text, from before the first step until after the last."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, select

from deltamem_agents.archive.tables import settings
from deltamem_agents.forgetting.fingerprints import Needle
from deltamem_agents.forgetting.receipt import AuditReference, Held

__all__ = [
    "Erased",
    "Place",
    "Plan",
    "Rolled",
    "drop_plans",
    "leftovers",
    "merged",
    "overwritten",
    "pending_plans",
    "store_plan",
]

_PREFIX = "forget-"

Place = Literal["checkpoints", "index"]


class Erased(BaseModel):
    """Name one record or message that goes. actor, reason: of an earlier call, or of a policy; empty: as the plan's."""

    model_config = ConfigDict(frozen=True)

    digest: str
    record: str | None = None
    thread: str | None = None
    policy: str = ""
    version: str = ""
    reason: str = ""
    actor: str = ""


class Rolled(BaseModel):
    """Name a thread that goes back to a checkpoint, the newest checkpoint that goes, and how many do."""

    model_config = ConfigDict(frozen=True)

    thread: str
    checkpoint: str
    newest: str
    removed: int


class Plan(BaseModel):
    """Name what goes.

    owner: the namespace that forgets. records, items: ids of rows. detached: records that stay because another thread
    has said the same, and the thread that has not. traces: messages (namespace, thread, id) whose records are gone
    already. messages: ids by thread. values: SHA-256 of other texts in checkpoints, by thread. stuck: places that
    say the query and cannot be rewritten. whole: threads that go as a whole.
    roots: the oldest checkpoint that each of these had, since a thread that has begun anew is not what was meant.
    begun: who asked for what earlier calls have left, and why, as far as the audit log does not say it.
    rolled: threads that go back to a checkpoint.
    needles: (text, size, start, whole) of fingerprints; texts: how many texts they are of. audit: set once the record
    is erased. unwritten: where bytes are left of what earlier calls have erased without `secure`.
    """

    name: str = Field(default_factory=lambda: _PREFIX + uuid.uuid4().hex[:24])
    owner: tuple[str, ...]
    reason: str
    actor: str
    secure: bool
    records: tuple[str, ...] = ()
    detached: tuple[tuple[str, str], ...] = ()
    items: tuple[str, ...] = ()
    traces: tuple[tuple[str, str, str], ...] = ()
    messages: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    values: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    stuck: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    roots: dict[str, str] = Field(default_factory=dict)
    rolled: tuple[Rolled, ...] = ()
    erased: tuple[Erased, ...] = ()
    held: tuple[Held, ...] = ()
    begun: tuple[tuple[str, str], ...] = ()
    needles: tuple[tuple[int, int, int, int], ...] = ()
    texts: int = 0
    short: int = 0
    audit: AuditReference | None = None
    unwritten: tuple[Place, ...] = ()

    @property
    def threads(self) -> tuple[str, ...]:
        """Return the threads whose checkpoints change or go."""
        return tuple(sorted({*self.messages, *self.values, *self.whole, *(one.thread for one in self.rolled)}))

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing to erase."""
        rows = (self.records, self.detached, self.items, self.traces)
        return not any((*rows, self.messages, self.values, self.whole, self.rolled))

    @property
    def left(self) -> bool:
        """Tell whether nothing is to be erased, and bytes are left of what was."""
        return self.empty and not self.secure and bool(self.unwritten)

    def leftover(self, places: Iterable[Place]) -> "Plan":
        """Return what is to be kept of a plan without `secure` that is carried out: where bytes are left."""
        named = {"name": self.name, "owner": self.owner, "reason": self.reason, "actor": self.actor}
        unwritten = tuple(sorted({*self.unwritten, *places}))
        return Plan.model_validate({**named, "secure": False, "audit": self.audit, "unwritten": unwritten})

    def fingerprints(self) -> list[Needle]:
        """Return the needles."""
        return [Needle(*needle) for needle in self.needles]


def merged(plan: Plan, earlier: Sequence[Plan]) -> Plan:
    """Return a plan that also does what earlier ones have left undone."""
    for old in earlier:
        known = {needle[1:] for needle in plan.needles}
        fresh = {needle[0] for needle in old.needles if needle[1:] not in known}
        moved = tuple((text + plan.texts, *rest) for text, *rest in old.needles if text in fresh)
        together: dict[str, Any] = {
            name: tuple(dict.fromkeys((*getattr(old, name), *getattr(plan, name))))
            for name in ("records", "detached", "items", "traces", "whole", "rolled", "held", "unwritten")
        }
        who = [
            one.model_copy(update={"actor": one.actor or old.actor, "reason": one.reason or old.reason})
            for one in old.erased
        ]
        # What was to go already, and is found again, went because of the earlier call.
        erased = {(one.digest, one.record, one.thread): one for one in (*plan.erased, *who)}
        together["erased"] = tuple(erased.values())
        together |= {
            "messages": _by_thread(old.messages, plan.messages),
            "values": _by_thread(old.values, plan.values),
            "needles": (*plan.needles, *moved),
            "texts": plan.texts + len(fresh),
            "short": plan.short + old.short,
            "roots": old.roots | plan.roots,
            "secure": plan.secure or old.secure,
            "begun": (*plan.begun, *(() if old.audit is not None else (*old.begun, (old.actor, old.reason)))),
        }
        # Nothing of the new plan is erased yet, so the record has to be looked at again.
        together["audit"] = plan.audit if old.left else old.audit if plan.empty else None
        plan = plan.model_copy(update=together)
    return plan


def _by_thread(old: Mapping[str, Sequence[str]], new: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {
        thread: tuple(dict.fromkeys((*old.get(thread, ()), *new.get(thread, ())))) for thread in sorted({*old, *new})
    }


def pending_plans(connection: Connection, owner: tuple[str, ...]) -> list[Plan]:
    """Return the plans of a namespace that were begun and not finished."""
    return [plan for plan in _plans(connection) if plan.owner == owner]


def leftovers(connection: Connection, owner: tuple[str, ...]) -> list[Plan]:
    """Return what calls of other namespaces have left without `secure` that a secure call of this one overwrites.

    That is what the index has, which the whole archive shares. Checkpoints of others may be in another database.
    """
    return [plan for plan in _plans(connection) if plan.left and plan.owner != owner and "index" in plan.unwritten]


def overwritten(connection: Connection, cleaned: Sequence[Plan]) -> None:
    """Cross out the index of what others have left, as their plans are now; another place stays."""
    names = {plan.name for plan in cleaned}
    for plan in _plans(connection):
        if plan.name in names:
            left = tuple(place for place in plan.unwritten if place != "index")
            drop_plans(connection, [plan])
            if left:
                store_plan(connection, plan.model_copy(update={"unwritten": left}))


def _plans(connection: Connection) -> list[Plan]:
    found = connection.execute(select(settings.c.value).where(settings.c.name.startswith(_PREFIX))).scalars()
    return [Plan.model_validate_json(value) for value in found]


def store_plan(connection: Connection, plan: Plan) -> None:
    """Write a plan down, or what has become of it."""
    connection.execute(settings.delete().where(settings.c.name == plan.name))
    connection.execute(settings.insert().values(name=plan.name, value=plan.model_dump_json()))


def drop_plans(connection: Connection, plans: Sequence[Plan]) -> None:
    """Cross plans out."""
    connection.execute(settings.delete().where(settings.c.name.in_([plan.name for plan in plans])))
