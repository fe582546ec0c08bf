"""Decide what is kept, found, shown and erased."""

from deltamem_agents.policy.chain import PolicyChain
from deltamem_agents.policy.decisions import Decision, Forget, Present, RedactedSpan, Retain, Retrieve, Trust
from deltamem_agents.policy.hooks import MemoryPolicy, PolicyContext, PolicyMessage, RecordLike, Signals, describe
from deltamem_agents.policy.loading import default_policy, load_policy
from deltamem_agents.policy.rules import Budget, LegalHold, Novelty, PersonalData, Roles, Secrets, TimeToLive
from deltamem_agents.policy.secrets import Finding, Redaction, redact_named, redact_secrets
from deltamem_agents.policy.trust import RequireApproval, SourceTrust, lowest_trust

__all__ = [
    "Budget",
    "Decision",
    "Finding",
    "Forget",
    "LegalHold",
    "MemoryPolicy",
    "Novelty",
    "PersonalData",
    "PolicyChain",
    "PolicyContext",
    "PolicyMessage",
    "Present",
    "RecordLike",
    "RedactedSpan",
    "Redaction",
    "RequireApproval",
    "Retain",
    "Retrieve",
    "Roles",
    "Secrets",
    "Signals",
    "SourceTrust",
    "TimeToLive",
    "Trust",
    "default_policy",
    "describe",
    "load_policy",
    "lowest_trust",
    "redact_named",
    "redact_secrets",
]
