"""Bring a thread's messages into the archive without making a reply wait."""

import contextvars
import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from sqlalchemy.exc import SQLAlchemyError
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_attempt, wait_exponential

from deltamem_agents.archive.errors import ArchiveError, RecordConflictError, RecordInvalidError
from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.records import Namespace, Trust, content_hash
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.audit import AuditEvent
from deltamem_agents.audited import Place, current_place, refused, retained
from deltamem_agents.budget import keep_within_budget
from deltamem_agents.messages import RECALLED_KEY, is_written
from deltamem_agents.policy import Retain, describe, lowest_trust
from deltamem_agents.policy.trust import QUARANTINED
from deltamem_agents.retention import Retention
from deltamem_agents.tracing import observed

__all__ = ["ArchiveWriter", "decide", "derived", "to_record"]

# What a database that is down, locked or full raises: worth another try, unlike what is wrong with a message.
_PASSING_FAULTS = (SQLAlchemyError, OSError)

_ATTEMPTS = 4  # with pauses of 0.1, 0.4 and 1.6 seconds between them

_log = logging.getLogger(__name__)
_THREAD = "deltamem-archive"
_PATIENCE = 10.0  # seconds


def to_record(message: BaseMessage, thread: str | None, said: datetime) -> NewRecord | None:
    """Describe a message as the archive keeps it, or return None for what is never archived.

    Never archived: system messages, messages without text, and what the archive itself has given (marked as not to be
    written). Tool results are trusted less than what people and the agent say. Raises RecordInvalidError for text that
    SQL cannot store.
    """
    text = message.text
    if not text.strip() or not is_written(message):
        return None
    if isinstance(message, ToolMessage):
        role, source, trust = "tool", f"tool:{message.name or 'unknown'}", Trust.LOW
    elif isinstance(message, AIMessage):
        role, source, trust = "assistant", "agent", Trust.MEDIUM
    elif isinstance(message, HumanMessage):
        role, source, trust = "user", "user", Trust.MEDIUM
    else:
        return None
    named = thread is not None and message.id is not None
    return NewRecord(
        text,
        thread=thread if named else None,
        message_id=message.id if named else None,
        role=role,
        source=source,
        trust=trust,
        created=said,
    )


def decide(
    retention: Retention, new: NewRecord, message: BaseMessage, thread: str | None
) -> tuple[NewRecord | None, Retain]:
    """Return a record as the policies let it into the archive, None if they do not, and what they decided."""
    decision = retention.decision(dataclasses.replace(describe(message), trust=new.trust), thread)
    if not decision.archive:
        return None, decision
    trust = new.trust if decision.trust is None else min(new.trust, decision.trust)
    held = (QUARANTINED,) if decision.quarantine else ()
    kept = dataclasses.replace(
        new,
        text=new.text if decision.text is None else decision.text,
        trust=trust,
        tags=tuple(dict.fromkeys((*new.tags, *decision.tags, *held))),
        ttl=decision.ttl if new.ttl is None else new.ttl,
    )
    return kept, decision


def derived(records: RecordStore, namespace: Namespace, new: NewRecord, message: BaseMessage) -> NewRecord:
    """Return the record of a reply with the lowest trust of what was recalled for it."""
    report = message.response_metadata.get(RECALLED_KEY) or ()
    ids = [one["id"] for one in report if one["verdict"] in {"shown", "excerpt"}]
    found = [record for record in (records.get(namespace, one) for one in ids) if record is not None]
    return dataclasses.replace(new, trust=lowest_trust([new.trust, *(record.trust for record in found)]))


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
        self, namespace: Namespace, messages: Sequence[BaseMessage], thread: str | None, given_up: Callable[[], None]
    ) -> None:
        """Take messages to be archived, and return at once. given_up: called if the database refuses them for good."""
        if not messages:
            return
        # In the caller's context, so that a trace shows the write under the turn that led to it.
        run = contextvars.copy_context().run
        write = partial(self._try, given_up, namespace, messages, current_place(), thread, datetime.now(UTC))
        job: Future[None] = self._pool.submit(run, write)
        with self._lock:
            self._pending.add(job)
        job.add_done_callback(self._settle)

    def flush(self, timeout: float = 60.0) -> None:
        """Wait until every record is written.

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

    def _try(self, given_up: Callable[[], None], *what: Any) -> None:
        """Write, and keep what fails for `flush`; a message has an identity, so trying again never stores it twice."""
        retrying = Retrying(
            retry=retry_if_exception_type(_PASSING_FAULTS),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential(multiplier=0.1, exp_base=4),
            before_sleep=before_sleep_log(_log, logging.WARNING),
            reraise=True,
        )
        try:
            retrying(self._write, *what)
        except Exception as error:
            # Before the job is done, since that is what `flush` waits for.
            with self._lock:
                self._failed.append(error)
            if isinstance(error, _PASSING_FAULTS):
                given_up()
            _log.error("messages could not be archived: %s", error)

    def _write(
        self, namespace: Namespace, messages: Sequence[BaseMessage], place: Place, thread: str | None, said: datetime
    ) -> None:
        records = self._store.records
        batch = _Batch(set() if thread is None else records.rejected(namespace, thread))
        for message in messages:
            try:
                new = to_record(message, thread, said)
                if new is not None:
                    new = derived(records, namespace, new, message)
                    batch.take(new, *decide(self._retention, new, message, thread), place.checkpoint)
            except RecordInvalidError as error:
                batch.invalid = error
        with observed("write") as writing:
            batch.write(records, namespace)
            gone = keep_within_budget(self._store, self._retention.policy, namespace)
            writing.count(kept=len(batch.kept), refused=len(batch.refused), gone=gone)
        self._store.vectors.wake()
        if batch.invalid is not None:
            raise batch.invalid


@dataclasses.dataclass(slots=True)
class _Batch:
    """Gather what is to be written. rejected: digests of texts that a person has rejected in this thread."""

    rejected: set[str | None]
    kept: list[tuple[NewRecord, list[AuditEvent]]] = dataclasses.field(default_factory=list)
    refused: list[AuditEvent] = dataclasses.field(default_factory=list)
    invalid: RecordInvalidError | None = None

    def take(self, new: NewRecord, kept: NewRecord | None, decision: Retain, checkpoint: str | None) -> None:
        """Keep a record or refuse it, with what the log says of it."""
        if kept is None:
            self.refused.append(refused(new, decision, checkpoint))
        elif content_hash(kept.text) not in self.rejected:
            self.kept.append((kept, retained(kept, decision, checkpoint)))

    def write(self, records: RecordStore, namespace: Namespace) -> None:
        """Write what is kept, and log what is not."""
        try:
            records.add_all(namespace, [one for one, _ in self.kept], decided=[events for _, events in self.kept])
        except RecordConflictError:
            for one, events in self.kept:
                _add_changed(records, namespace, one, events)
        records.audit_new(namespace, self.refused)


def _add_changed(records: RecordStore, namespace: Namespace, new: NewRecord, events: Sequence[AuditEvent]) -> None:
    """Add a record; a message that was archived with another text (someone edited it) gets one beside the first."""
    try:
        records.add_all(namespace, [new], decided=[events])
    except RecordConflictError:
        if new.message_id is None:
            raise
        changed = dataclasses.replace(new, message_id=f"{new.message_id}#{content_hash(new.text)[:16]}")
        records.add_all(namespace, [changed], decided=[events])
