"""Trust sources differently, and quarantine what an untrusted one phrases as an instruction."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from pydantic import Field

from deltamem_agents.policy.decisions import Present, Retain, Trust
from deltamem_agents.policy.hooks import PolicyContext, PolicyMessage, RecordLike, Signals
from deltamem_agents.policy.rules import Rule, matches
from deltamem_agents.policy.shapes import instruction_shapes

__all__ = ["QUARANTINED", "SourceTrust", "lowest_trust"]

QUARANTINED = "quarantined"
"""The tag of records that are kept and not found until somebody takes it off."""

_LEVELS = {
    "user": Trust.HIGH,
    "system": Trust.HIGH,
    "agent": Trust.MEDIUM,
    "tool:*": Trust.LOW,
    "web": Trust.LOW,
    "import": Trust.LOW,
}


def lowest_trust(levels: Iterable[int]) -> Trust:
    """Return the trust of what is derived from these: the lowest of them; HIGH for nothing."""
    return Trust(min(levels, default=Trust.HIGH))


class SourceTrust(Rule):
    """Give each source its trust, and quarantine what an untrusted one phrases as an instruction.

    levels: trust of a source; the longest pattern that matches counts, and a source that none matches is LOW.
    trusted_from: a source below this is untrusted. A message's own trust, of what it was made from, can only lower it;
    a call of a tool that was made from untrusted text is quarantined whatever it says.
    """

    name: ClassVar[str] = "trust"
    levels: Mapping[str, Trust] = Field(default_factory=lambda: dict(_LEVELS))
    trusted_from: Trust = Trust.MEDIUM

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:  # noqa: ARG002
        """Set the trust; quarantine instructions of untrusted sources."""
        trust = lowest_trust([self.level(message.source), message.trust])
        untrusted = trust < self.trusted_from
        shapes = instruction_shapes(message.text) if untrusted else ()
        shapes += ("call",) if untrusted and message.calls else ()
        if not shapes:
            return Retain(trust=trust, reason=f"{message.source} has trust {trust.name}")
        return Retain(
            quarantine=True,
            working=False,
            trust=trust,
            tags=(QUARANTINED,),
            reason=f"{message.source} has trust {trust.name} and reads like an instruction: {', '.join(shapes)}",
        )

    def present(self, record: RecordLike, context: PolicyContext) -> Present:  # noqa: ARG002
        """Keep quarantined records from the model until they are approved."""
        if QUARANTINED in record.tags:
            return Present(action="quarantine", reason="waits for approval")
        return Present(reason="not quarantined")

    def level(self, source: str) -> Trust:
        """Return the trust of a source."""
        fitting = [pattern for pattern in self.levels if matches(source, [pattern])]
        return self.levels[max(fitting, key=len)] if fitting else Trust.LOW
