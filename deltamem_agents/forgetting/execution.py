"""Erase what a plan names, tier by tier; every step can be done again, so a plan that was cut off is repeated."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.runnables import Runnable
from sqlalchemy import Engine, select

from deltamem_agents.archive.database import READ_ONLY, empty_log
from deltamem_agents.archive.errors import ArchiveError
from deltamem_agents.archive.items import below
from deltamem_agents.archive.outbox import known_index
from deltamem_agents.archive.places import is_server
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archive.tables import items, records, threads
from deltamem_agents.archive.threads import drop_threads
from deltamem_agents.forgetting.archive_files import archive_files, overwrite_archive
from deltamem_agents.forgetting.fingerprints import Needle, blocks_of, found_in
from deltamem_agents.forgetting.histories import ThreadReport, erase_from_thread, remaining
from deltamem_agents.forgetting.plan import Place, Plan, drop_plans, overwritten, store_plan
from deltamem_agents.forgetting.receipt import ForgetReceipt, Scan, Tier, TierName
from deltamem_agents.forgetting.record import erase_record
from deltamem_agents.forgetting.replay import Absorb
from deltamem_agents.forgetting.replaying import absorber, clear_prefix_caches
from deltamem_agents.forgetting.rollback import take_back
from deltamem_agents.forgetting.rows import CheckpointRows

__all__ = ["Execution", "receipt_of", "standing"]


def receipt_of(plan: Plan, tiers: dict[TierName, Tier], **fields: Any) -> ForgetReceipt:
    """Return a plan's receipt."""
    return ForgetReceipt(
        namespace=plan.owner,
        reason=plan.reason,
        secure=plan.secure,
        threads=plan.threads,
        tiers=tiers,
        digests=tuple(dict.fromkeys(one.digest for one in plan.erased)),
        held=plan.held,
        **fields,
    )


def standing(plan: Plan, rows: CheckpointRows) -> list[str]:
    """Return the threads that go as a whole and are still there; what has begun anew under the name is not meant."""
    return [thread for thread in plan.whole if thread in plan.roots and rows.first(thread) == plan.roots[thread]]


@dataclass
class Execution:
    """Carry out one plan.

    earlier: plans that it has taken over, to be crossed out with it. others: what other namespaces have left without
    `secure`, which it overwrites as well.
    """

    store: MemoryStore
    rows: CheckpointRows | None
    model: Runnable[Any, Any] | None
    plan: Plan
    earlier: list[Plan]
    others: list[Plan]

    def run(self) -> ForgetReceipt:
        """Erase, scan, and return the receipt; raises what a database raises, and then a second call goes on."""
        engine = self.store.engine
        with engine.begin() as connection:
            drop_plans(connection, self.earlier)
            store_plan(connection, self.plan)
            # What an earlier plan has removed may have begun anew since, and be noted for that.
            drop_threads(connection, set(self.plan.whole).difference(*(old.whole for old in self.earlier)))
        tiers = self.erase_checkpoints()
        self.plan = self.erase_rows(engine)
        tiers |= {
            "record": Tier(erased=len(self.plan.records) + len(self.plan.detached)),
            "items": Tier(erased=len(self.plan.items)),
            "index": self.erase_vectors(engine),
            "bytes": self.overwrite(engine),
            "prefix_caches": Tier(erased=clear_prefix_caches(self.model)),
        }
        scan = self.scan(engine) if self.plan.secure else None
        complete = all(tier.reached for tier in tiers.values()) and (scan is None or not scan.hits)
        if complete:
            self.finish(engine)
        return receipt_of(
            self.plan,
            tiers,
            complete=complete,
            # Without `secure` nothing is done about bytes that others have left.
            resumed=any(self.plan.secure or not old.left for old in (*self.earlier, *self.others)),
            scan=scan,
            audit=self.plan.audit,
        )

    def erase_checkpoints(self) -> dict[TierName, Tier]:
        """Take the messages out of every checkpoint, and the working memories back to before them and on again."""
        if self.rows is None:
            note = "no checkpointer was given"
            if self.plan.threads:
                note += ": threads and their working memories are as they were; call again with their checkpointer"
            untouched = Tier(reached=not self.plan.threads, note=note)
            return {"checkpoints": untouched, "working_memory": untouched}
        absorb: Absorb | None = None if self.model is None else absorber(self.model)
        for rolled in self.plan.rolled:
            take_back(self.rows, rolled)
        whole = standing(self.plan, self.rows)
        for thread in whole:
            self.rows.remove(thread)
        reports = [
            erase_from_thread(self.rows, t, self.plan.messages.get(t, ()), absorb, self.plan.values.get(t, ()))
            for t in sorted({*self.plan.messages, *self.plan.values})
        ]
        rewritten = sum(report.checkpoints for report in reports)
        note = f"{len(whole)} threads removed as a whole, {rewritten} checkpoints rewritten"
        removed = sum(rolled.removed for rolled in self.plan.rolled)
        note += f", {removed} removed by a rollback" if self.plan.rolled else ""
        if self.plan.stuck:
            note += f"; cannot be rewritten, and says the query: {', '.join(self.plan.stuck)}"
        erased = sum(map(len, self.plan.messages.values()))
        return {
            "checkpoints": Tier(erased=erased, reached=not self.plan.stuck, note=note),
            "working_memory": _memory_tier(reports),
        }

    def erase_rows(self, engine: Engine) -> Plan:
        """Erase records, items and their postings, and write the audit entries, in one transaction."""
        if self.plan.audit is not None:
            return self.plan
        with engine.begin() as connection:
            plan = erase_record(connection, self.plan)
            store_plan(connection, plan)
        return plan

    def erase_vectors(self, engine: Engine) -> Tier:
        """Make the vector index anew in another directory, or without `secure` only take the vectors out."""
        vectors = self.store.vectors
        vectors.wake()
        with engine.connect().execution_options(**READ_ONLY) as connection:
            known = known_index(connection)
        if vectors.place is None:
            note = "the record has a vector index, and its directory was not given" if known else "there is none"
            return Tier(reached=known is None, note=note)
        gone, again = len(self.plan.records), self.plan.secure and "index" in self.plan.unwritten
        if not self._archived() and not again:
            return Tier(note="nothing of it was in the index")
        try:
            if self.plan.secure:
                kept = self.store.rebuild()
                return Tier(erased=gone, note=f"made anew with {kept} vectors")
            self.store.flush()
        except ArchiveError as error:
            return Tier(reached=False, note=str(error))
        return Tier(erased=gone, note="taken out; the bytes stay until the index is made anew")

    def overwrite(self, engine: Engine) -> Tier:
        """Let no file keep the bytes of what was erased."""
        if not self.plan.secure:
            return Tier(note="not asked for")
        # Though nothing goes now: an earlier call may have erased without `secure`.
        faults = [overwrite_archive(engine), None if self.rows is None else self.rows.overwrite()]
        if self.rows is None and "checkpoints" in self.plan.unwritten:
            faults.append("an earlier call erased without `secure` in checkpoints; call again with their checkpointer")
        said = "; ".join(fault for fault in faults if fault)
        done = "databases written anew, logs emptied"
        done += ", with what earlier calls erased without `secure`" if self.plan.unwritten else ""
        return Tier(reached=not said, note=said or done)

    def _archived(self) -> bool:
        """Tell whether vectors may go: also of what was a message, and has expired or was deleted."""
        return bool(self.plan.records or self.plan.items or self.plan.traces)

    def scan(self, engine: Engine) -> Scan:
        """Read every file of the databases and the index, and look for what was erased."""
        needles = self.plan.fingerprints()
        files = [*archive_files(engine), *([] if self.rows is None else self.rows.files())]
        index = self.store.vectors.place
        remote = index is not None and is_server(index)
        if index is not None and not remote:
            files += [file for file in sorted(Path(index).rglob("*")) if file.is_file()]
        where = {file: found_in(blocks_of(file), needles) for file in files}
        still = set[Needle]().union(*where.values())
        kept = found_in(self._kept(engine), still) if still else set()
        left = {file: {needle.text for needle in found - kept} for file, found in where.items()}
        hits = set[int]().union(*left.values())
        unread = ["the files of the archive's Postgres server"] if engine.dialect.name == "postgresql" else []
        unread += ["the files of the index's Chroma server"] if remote else []
        unread += [] if self.rows is None else self.rows.unread
        return Scan(
            files=len(files),
            bytes=sum(file.stat().st_size for file in files),
            texts=self.plan.texts - self.plan.short,
            hits=sum(map(len, left.values())),
            kept=len({needle.text for needle in still} - hits),
            short=self.plan.short,
            found_in=tuple(str(file) for file, texts in left.items() if texts),
            unread=tuple(unread),
        )

    def _kept(self, engine: Engine) -> Iterator[bytes]:
        """Yield what is kept and may say the same as what was erased.

        Of threads that the namespace knows only messages that stay are kept, and of those that were not rewritten what
        a graph was given: all else that is found there was missed.
        """
        with engine.connect().execution_options(**READ_ONLY) as connection:
            for column in (records.c.text, items.c.value, items.c.key):
                for value in connection.execute(select(column)).scalars():
                    yield value.encode()
            here = select(threads.c.thread).where(below(threads.c.namespace, self.plan.owner))
            known = {*connection.execute(here).scalars(), *self.plan.threads}
        if self.rows is not None:
            yield from self.rows.blobs(without=known)
            for thread in sorted(known):
                gone, changed = self.plan.messages.get(thread, ()), thread in self.plan.threads
                yield from remaining(self.rows, thread, gone, changed=changed)

    def finish(self, engine: Engine) -> None:
        """Cross the plan out, or what of it is done, where bytes are left."""
        index = self._archived() and self.store.vectors.place is not None
        places: dict[Place, bool] = {"index": index, "checkpoints": bool(self.plan.threads)}
        left = self.plan.leftover(place for place, there in places.items() if there)
        with engine.begin() as connection:
            drop_plans(connection, [self.plan])
            overwritten(connection, self.others)
            if left.left and not self.plan.secure:
                store_plan(connection, left)
        empty_log(engine)


def _memory_tier(reports: list[ThreadReport]) -> Tier:
    changed = [report for report in reports if report.memory != "untouched"]
    rewound = [report for report in changed if report.memory == "rewound"]
    notes = []
    if rewound:
        notes.append(
            f"{len(rewound)} taken back to before the message, since no model was given; what came after is absorbed "
            "again by the next turn"
        )
    if anew := sum(report.anew for report in changed):
        notes.append(f"{anew} begun anew with the messages that are left, since no checkpoint is from before")
    if any(report.exact is False for report in reports):
        notes.append(
            "replaying a call as it was gave another memory than it had given: the model was not called as the agent "
            "calls it (system prompt, tools, window_tokens), or this machine rounds otherwise; nothing of the message "
            "is in the new memory all the same"
        )
    return Tier(erased=len(changed), note="; ".join(notes))
