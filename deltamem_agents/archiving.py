"""Bring a thread's messages into the archive without making a reply wait."""

import dataclasses
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from deltamem_agents.archive.errors import ArchiveError, RecordConflictError, RecordInvalidError
from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.records import Namespace, Trust, content_hash
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.messages import is_written
from deltamem_agents.policy import PolicyChain, PolicyContext, PolicyMessage, Signals

__all__ = ["QUARANTINED", "ArchiveWriter", "decide", "to_record"]

QUARANTINED = "quarantined"
"""The tag of records that are kept and not found until somebody takes it off."""

_log = logging.getLogger(__name__)


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


def decide(policy: PolicyChain, new: NewRecord, namespace: Namespace) -> NewRecord | None:
    """Return a record as the policies let it into the archive, or None if they do not."""
    message = PolicyMessage(new.text, new.source, new.message_id or "", new.trust, new.tags)
    decision = policy.retain(message, Signals(context=PolicyContext(namespace, new.thread)))
    if not decision.archive:
        return None
    trust = new.trust if decision.trust is None else min(new.trust, decision.trust)
    held = (QUARANTINED,) if decision.quarantine else ()
    return dataclasses.replace(
        new,
        text=new.text if decision.text is None else decision.text,
        trust=trust,
        tags=tuple(dict.fromkeys((*new.tags, *decision.tags, *held))),
        ttl=decision.ttl if new.ttl is None else new.ttl,
    )


class ArchiveWriter:
    """Write records on a thread of its own, in the order in which they come.

    A write that fails is said in the log at once, and raised by the next `flush`.
    """

    def __init__(self, store: MemoryStore, policy: PolicyChain) -> None:
        """Take the store whose records are written, and who decides which; the first write opens the store."""
        self._store = store
        self._policy = policy
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="deltamem-archive")
        self._pending: set[Future[None]] = set()
        self._failed: list[BaseException] = []
        self._lock = threading.Lock()

    def put(self, namespace: Namespace, messages: Sequence[BaseMessage], thread: str | None) -> None:
        """Take messages to be archived, and return at once."""
        if not messages:
            return
        job = self._pool.submit(self._write, namespace, messages, thread, datetime.now(UTC))
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

    def close(self) -> None:
        """Write what is waiting, and stop the thread."""
        self._pool.shutdown(wait=True)

    def _settle(self, job: "Future[None]") -> None:
        error = job.exception()
        with self._lock:
            if error is not None:
                self._failed.append(error)
            self._pending.discard(job)
        if error is not None:
            _log.error("messages could not be archived: %s", error)

    def _write(self, namespace: Namespace, messages: Sequence[BaseMessage], thread: str | None, said: datetime) -> None:
        new: list[NewRecord] = []
        refused: RecordInvalidError | None = None
        for message in messages:
            try:
                record = to_record(message, thread, said)
                allowed = None if record is None else decide(self._policy, record, namespace)
            except RecordInvalidError as error:
                refused = error
            else:
                new += [] if allowed is None else [allowed]
        records = self._store.records
        try:
            records.add_all(namespace, new)
        except RecordConflictError:
            for one in new:
                _add_changed(records, namespace, one)
        self._store.vectors.wake()
        if refused is not None:
            raise refused


def _add_changed(records: RecordStore, namespace: Namespace, new: NewRecord) -> None:
    """Add a record; a message that was archived with another text (someone edited it) gets one beside the first."""
    try:
        records.add(namespace, new)
    except RecordConflictError:
        if new.message_id is None:
            raise
        records.add(namespace, dataclasses.replace(new, message_id=f"{new.message_id}#{content_hash(new.text)[:16]}"))
