"""Trust sources differently, and quarantine what an untrusted one phrases as an instruction."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from deltamem_agents.policy.decisions import Present, Retain, Trust
from deltamem_agents.policy.hooks import PolicyContext, PolicyMessage, RecordLike, Signals
from deltamem_agents.policy.rules import Rule, matches
from deltamem_agents.policy.shapes import instruction_shapes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["QUARANTINED", "RequireApproval", "SourceTrust", "lowest_trust"]

QUARANTINED = "quarantined"

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
    trusted_from: a source below this is untrusted. A message's own trust, of what it was made from, can only lower it.
    """

    name: ClassVar[str] = "trust"
    levels: Mapping[str, Trust] = Field(default_factory=lambda: dict(_LEVELS))
    trusted_from: Trust = Trust.MEDIUM

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:  # noqa: ARG002
        """Set the trust; quarantine instructions of untrusted sources."""
        trust = lowest_trust([self.level(message.source), message.trust])
        shapes = () if trust >= self.trusted_from else instruction_shapes(message.text)
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


class RequireApproval:
    """Ask a person about quarantined messages, by a LangGraph interrupt inside the node that writes them."""

    def review(self, message: PolicyMessage, decision: Retain) -> Retain:
        """Return the decision after a person's answer, or as it is if nothing is quarantined.

        Interrupts the graph with {"policy", "reason", "source", "text"}; resume with Command(resume="approve") to write
        the message, "reject" to write it nowhere, or anything else to leave it in quarantine.
        """
        if not decision.quarantine:
            return decision
        from langgraph.types import interrupt  # noqa: PLC0415 - langgraph is loaded by those who use this

        ask: Callable[[Any], Any] = interrupt
        text = message.text if decision.text is None else decision.text
        answer = ask({"policy": decision.policy, "reason": decision.reason, "source": message.source, "text": text})
        if answer == "approve":
            tags = tuple(tag for tag in decision.tags if tag != QUARANTINED)
            return decision.model_copy(
                update={"quarantine": False, "working": _all_others_write(decision), "tags": tags, "reason": "approved"}
            )
        if answer == "reject":
            return decision.model_copy(
                update={"quarantine": False, "working": False, "archive": False, "reason": "rejected"}
            )
        return decision


def _all_others_write(decision: Retain) -> bool:
    """Tell whether only the quarantine kept a message from the working memory."""
    return all(part.working or part.quarantine for part in decision.parts if isinstance(part, Retain))
