"""Decide what is kept, shown and erased."""

from deltamem_agents.policy.secrets import Finding, Redaction, redact_named, redact_secrets

__all__ = ["Finding", "Redaction", "redact_named", "redact_secrets"]
