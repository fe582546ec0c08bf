"""Bring a thread's messages into the archive without making a reply wait."""

import contextvars
import dataclasses
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from functools import cache

from langchain_core.messages import BaseMessage
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_attempt, wait_exponential

from deltamem_agents.archive.errors import ArchiveError, RecordConflictError, RecordInvalidError
from deltamem_agents.archive.logged import refused, retained
from deltamem_agents.archive.record_store import RecordStore, add_decided
from deltamem_agents.archive.records import Namespace, content_hash, edited_id
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archive.threads import note_thread
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.audit import AuditEvent
from deltamem_agents.audited import unrecorded
from deltamem_agents.budget import keep_within_budget
from deltamem_agents.lineage import Lineage
from deltamem_agents.policy import Retain
from deltamem_agents.recording import decide, may_be_kept, to_record
from deltamem_agents.retention import Retention
from deltamem_agents.running import Place, current_place
from deltamem_agents.tracing import observed

__all__ = ["ArchiveWriter", "in_quarantine"]

# What a database that is down, locked or full raises: worth another try, unlike what is wrong with a message.
_PASSING_FAULTS = (SQLAlchemyError, OSError)

_ATTEMPTS = 4  # with pauses of 0.1, 0.4 and 1.6 seconds between them

_log = logging.getLogger(__name__)
_THREAD = "deltamem-archive"
_PATIENCE = 10.0  # seconds
_REJECTED = "a person has rejected this text in this thread"


class ArchiveWriter:
    """Write records on a thread of its own, in the order in which they come.

    A write that a database refuses is tried again a few times, which the log says. One that fails for good is said in
    the log at once, and raised by the next `flush`.
    """

    def __init__(self, store: MemoryStore, retention: Retention) -> None:
        """Take the store whose records are written, and who decides which; the first write opens the store."""
        self._store = store
        self._retention = retention
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=_THREAD)
        self._pending: set[Future[None]] = set()
        self._failed: list[BaseException] = []
        self._lock = threading.Lock()

    def put(
        self,
        namespace: Namespace,
        messages: Sequence[BaseMessage],
        fresh: Collection[int],
        thread: str | None,
        given_up: Callable[[], None],
    ) -> None:
        """Take messages of a thread, those at the places `fresh` to be archived, and return at once.

        The others say what a reply may come from. given_up: called if the database refuses the fresh ones for good.
        """
        if not fresh:
            return
        place, said = current_place(), datetime.now(UTC)
        # No partial: the log names what is tried again, and a partial's name has its arguments, which are texts.
        self._hand_over(lambda: self._write(namespace, messages, fresh, place, thread, said), given_up)

    def log(self, namespace: Namespace, events: Sequence[AuditEvent]) -> None:
        """Take entries of the audit log about what changes nothing in the record, and return at once."""
        self._hand_over(lambda: self._store.records.audit_all(namespace, events))

    def _hand_over(self, write: Callable[[], object], given_up: Callable[[], None] = lambda: None) -> None:
        # In the caller's context, so that a trace shows the write under the turn that led to it.
        run = contextvars.copy_context().run
        job: Future[None] = self._pool.submit(run, self._try, write, given_up)
        with self._lock:
            self._pending.add(job)
        job.add_done_callback(self._settle)

    def flush(self, timeout: float = 60.0) -> None:
        """Wait until every record and every entry of the log is written.

        Raises ArchiveError if one could not be, or if the time is up.
        """
        with self._lock:
            waiting = set(self._pending)
        late = wait(waiting, timeout).not_done
        if late:
            raise ArchiveError(f"{len(late)} writes to the archive are not done after {timeout:g} s; flush again")
        with self._lock:
            failed, self._failed = self._failed, []
        if failed:
            first = failed[0]
            raise ArchiveError(f"{len(failed)} writes to the archive failed, the first with: {first}") from first

    def wait(self) -> None:
        """Wait until what was handed over before is in the record, or has failed; at once on the writing thread."""
        if threading.current_thread().name.startswith(_THREAD):
            return
        with self._lock:
            waiting = set(self._pending)
        wait(waiting, _PATIENCE)

    def close(self) -> None:
        """Write what is waiting, and stop the thread."""
        self._pool.shutdown(wait=True)

    def _settle(self, job: "Future[None]") -> None:
        with self._lock:
            self._pending.discard(job)

    def _try(self, write: Callable[[], object], given_up: Callable[[], None]) -> None:
        """Write, and keep what fails for `flush`; a message has an identity, so trying again never stores it twice."""
        retrying = Retrying(
            retry=retry_if_exception_type(_PASSING_FAULTS),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential(multiplier=0.1, exp_base=4),
            before_sleep=before_sleep_log(_log, logging.WARNING),
            reraise=True,
        )
        try:
            retrying(write)
        except Exception as error:
            # Before the job is done, since that is what `flush` waits for.
            with self._lock:
                self._failed.append(error)
            if isinstance(error, _PASSING_FAULTS):
                given_up()
            _log.error("a write to the archive failed: %s", error)

    def _write(
        self,
        namespace: Namespace,
        messages: Sequence[BaseMessage],
        fresh: Collection[int],
        place: Place,
        thread: str | None,
        said: datetime,
    ) -> None:
        records = self._store.records
        if thread is not None:
            # Before the policies are asked: a thread of which they keep nothing is to be found all the same.
            note_thread(self._store.engine, namespace, thread)
        batch = _Batch(set() if thread is None else records.rejected(namespace, thread))
        lineage = Lineage(self._retention, thread, place.run, in_quarantine(records, namespace, thread))
        for at, message in enumerate(messages):
            try:
                new = to_record(message, thread, said) if at in fresh else None
                if new is not None:
                    batch.take(new, *decide(lineage, new, message), place.checkpoint)
                elif at in fresh and self._retention.policy.policies and may_be_kept(message):
                    batch.logged.append(unrecorded(message, lineage.decision(message), thread, place.checkpoint))
                else:
                    lineage.follow(message)
            except RecordInvalidError as error:
                batch.invalid = error
        with observed("write") as writing:
            batch.write(self._store, namespace)
            gone = keep_within_budget(self._store, self._retention.policy, namespace)
            refusals = sum(event.action == "refuse" for event in batch.logged)
            writing.count(kept=len(batch.kept), refused=refusals, gone=gone)
        self._store.sweep_if_due()
        self._store.vectors.wake()
        if batch.invalid is not None:
            raise batch.invalid


@dataclasses.dataclass(slots=True)
class _Batch:
    """Gather what is to be written. rejected: digests of texts that a person has rejected in this thread."""

    rejected: set[str | None]
    kept: list[tuple[NewRecord, list[AuditEvent]]] = dataclasses.field(default_factory=list)
    logged: list[AuditEvent] = dataclasses.field(default_factory=list)
    invalid: RecordInvalidError | None = None

    def take(self, new: NewRecord, kept: NewRecord | None, decision: Retain, checkpoint: str | None) -> None:
        """Keep a record or refuse it, with what the log says of it."""
        if kept is not None and content_hash(kept.text) in self.rejected:
            kept, decision = None, decision.model_copy(update={"reason": _REJECTED, "archive": False})
        if kept is None:
            self.logged += refused(new, decision, checkpoint)
        else:
            self.kept.append((kept, retained(new, kept, decision, checkpoint)))

    def write(self, store: MemoryStore, namespace: Namespace) -> None:
        """Write what is kept, and log what is not."""
        try:
            add_decided(store.engine, namespace, [one for one, _ in self.kept], [events for _, events in self.kept])
        except RecordConflictError:
            for one, events in self.kept:
                _add_changed(store.engine, namespace, one, events)
        store.records.audit_new(namespace, self.logged)


def in_quarantine(records: RecordStore, namespace: Namespace, thread: str | None) -> Callable[[str | None], bool]:
    """Return what tells whether a text of a thread is in quarantine, or any; the database is asked once, if at all."""

    @cache
    def held() -> frozenset[str]:
        return frozenset() if thread is None else frozenset(one.hash for one in records.waiting(namespace, thread))

    return lambda text: bool(held()) if text is None else content_hash(text) in held()


def _add_changed(engine: Engine, namespace: Namespace, new: NewRecord, events: Sequence[AuditEvent]) -> None:
    """Add a record; a message that was archived with another text (someone edited it) gets one beside the first."""
    try:
        add_decided(engine, namespace, [new], [events])
    except RecordConflictError:
        if new.message_id is None:
            raise
        changed = dataclasses.replace(new, message_id=edited_id(new.message_id, content_hash(new.text)))
        told = [event.model_copy(update={"detail": {**event.detail, "edited": True}}) for event in events]
        add_decided(engine, namespace, [changed], [told])
