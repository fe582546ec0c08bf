"""Hand what is in quarantine to a person, and do as they say."""

import logging
from collections.abc import Mapping, Sequence

from langchain_core.messages import BaseMessage

from deltamem_agents.archive.errors import RecordNotFoundError
from deltamem_agents.archive.records import Record, content_hash, edited_id
from deltamem_agents.messages import UNWRITTEN
from deltamem_agents.policy import describe
from deltamem_agents.policy.approval import Question, approved
from deltamem_agents.recalling import ArchiveRecall

__all__ = ["REMOVED", "ArchiveReview"]

REMOVED = "[removed: rejected on review]"
_REVIEWER = "reviewer"
_LOOKED_AT = 1_000  # entries of the log

_log = logging.getLogger(__name__)


class ArchiveReview(ArchiveRecall):
    """Let a person decide about records in quarantine; `RequireApproval` asks them."""

    def waiting(self, messages: Sequence[BaseMessage], thread: str) -> list[Question]:
        """Archive a thread's messages, and return its records in quarantine, the oldest first.

        The reason is that of the audit log.
        """
        self.archive(messages, thread)
        self._writer.flush()
        records = self.store.records
        held = records.waiting(self.namespace, thread)
        if not held:
            return []
        logged = records.audit_entries(self.namespace, action="quarantine", limit=_LOOKED_AT)
        reasons = {entry.record_id: entry.reason for entry in reversed(logged)}
        return [
            {
                "id": record.id,
                "message": record.message_id,
                "source": record.source,
                "reason": reasons.get(record.id),
                "text": record.text,
            }
            for record in held
        ]

    def settle(self, answers: Mapping[str, str], messages: Sequence[BaseMessage], thread: str) -> None:
        """Approve or reject records by id; any other answer leaves them where they are, as does a second one.

        messages: those of the thread; what is approved of them counts as approved for the working memory too.
        """
        for record_id, answer in answers.items():
            try:
                if answer == "approve":
                    record = self.store.records.approve(self.namespace, record_id, actor=_REVIEWER)
                    self._let_through(record, messages, thread)
                elif answer == "reject":
                    self.store.records.reject(self.namespace, record_id, actor=_REVIEWER)
            except RecordNotFoundError:
                _log.info("record %s is no longer in quarantine", record_id)

    def _let_through(self, record: Record, messages: Sequence[BaseMessage], thread: str) -> None:
        """Take back what was decided about the messages that are this record."""
        for message in messages:
            decision = self.retention.lately(seen := describe(message), thread)
            if decision is None or not decision.quarantine:
                continue
            text = message.text if decision.text is None else decision.text
            if content_hash(text) == record.hash:
                self.retention.remember(seen, thread, approved(decision))

    def without_rejected(self, messages: Sequence[BaseMessage], thread: str) -> list[BaseMessage]:
        """Return a replacement without text for each message that was rejected in this thread, by whatever way."""
        rejected = self.store.records.rejected_messages(self.namespace, thread)
        return [
            message.model_copy(
                update={"content": REMOVED, "additional_kwargs": {**message.additional_kwargs, UNWRITTEN: True}}
            )
            for message in messages
            if message.text != REMOVED and rejected & {message.id, edited_id(message.id, content_hash(message.text))}
        ]
