"""Say who decided what about a memory, when and why, in a log that shows when it was tampered with."""

from deltamem_agents.audit.events import (
    Action,
    AuditEntry,
    AuditError,
    AuditEvent,
    AuditHead,
    AuditProblem,
    AuditReport,
)
from deltamem_agents.audit.log import append, append_all, newest_entries, read_entries
from deltamem_agents.audit.verification import verify

__all__ = [
    "Action",
    "AuditEntry",
    "AuditError",
    "AuditEvent",
    "AuditHead",
    "AuditProblem",
    "AuditReport",
    "append",
    "append_all",
    "newest_entries",
    "read_entries",
    "verify",
]
