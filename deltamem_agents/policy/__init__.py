"""Decide what is kept, found, shown and erased.

`RequireApproval`, which needs langchain and langgraph, and `Presidio` are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deltamem_agents.policy.chain import PolicyChain
from deltamem_agents.policy.decisions import Decision, Forget, Present, RedactedSpan, Retain, Retrieve, Trust
from deltamem_agents.policy.hooks import MemoryPolicy, PolicyContext, PolicyMessage, RecordLike, Signals, describe
from deltamem_agents.policy.loading import default_policy, load_policy
from deltamem_agents.policy.rules import Budget, LegalHold, Novelty, PersonalData, Roles, Secrets, TimeToLive
from deltamem_agents.policy.secrets import Finding, Redaction, redact_named, redact_secrets
from deltamem_agents.policy.trust import SourceTrust, lowest_trust

if TYPE_CHECKING:
    from deltamem_agents.policy.approval import RequireApproval
    from deltamem_agents.policy.presidio import Presidio

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
    "Presidio",
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


_LATER = {"Presidio": "presidio", "RequireApproval": "approval"}


def __getattr__(name: str) -> Any:
    """Load a public name's module on first use."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"deltamem_agents.policy.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
