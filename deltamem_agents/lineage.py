"""Follow what each reply was made from, so that it is trusted no more than that."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage

from deltamem_agents.decided import Kept, Said
from deltamem_agents.messages import is_written
from deltamem_agents.policy import Retain, Trust, describe, lowest_trust
from deltamem_agents.policy.hooks import source_of
from deltamem_agents.recalled import shown_trust
from deltamem_agents.running import trust_read
from deltamem_agents.working_memory import WorkingMemory

if TYPE_CHECKING:
    from deltamem_agents.retention import Retention

__all__ = ["Lineage", "made_from"]


def made_from(said: Sequence[Said], decided: Mapping[bytes, Kept], memory: bytes | str | None) -> Trust:
    """Return the lowest trust of what the last of these messages may come from; HIGH for what nobody derived.

    What an agent hears that another one's tool runs comes from what led to that call. A reply comes from what stands
    before it, a summary from all that the thread has had. decided: what was decided, by name. memory: what it has
    absorbed is not read any more.
    """
    *before, last = said
    if source_of(last.message) != "agent":
        return trust_read()
    tainted = any(kept.quarantined for kept in decided.values())
    read = {
        one.digest: Trust.LOW if tainted and is_summary(one.message) else shown_trust(one.message)
        for one in before
        if not isinstance(one.message, AIMessage)
    }
    if lowest_trust(read.values()) < Trust.HIGH and memory is not None:
        for digest in WorkingMemory.from_bytes(memory).digests:
            read.pop(digest, None)
    held = tainted if is_summary(last.message) else any(decided.get(one.name, Kept()).quarantined for one in before)
    return lowest_trust([shown_trust(last.message), *read.values(), Trust.LOW if held else trust_read()])


def is_summary(message: BaseMessage) -> bool:
    """Tell whether the agent has made a message of others, which may be gone."""
    return not isinstance(message, AIMessage) and source_of(message) == "agent"


class Lineage:
    """Go through a thread's messages in their order, and decide about each with the trust of what it came from.

    A reply may come from every quarantined text and every result of the search tool before it, and from what was
    recalled for it; a summary, from all that the thread has had. held: tells whether the archive has a text of the
    thread in quarantine, or, asked about None, any; for summaries, and messages whose decision this process has
    forgotten. lowest: the trust of what comes next, as far as it comes from these messages.
    """

    def __init__(
        self,
        retention: "Retention",
        thread: str | None,
        run: Mapping[str, Any],
        held: Callable[[str | None], bool] | None = None,
    ) -> None:
        self._retention = retention
        self._thread = thread
        self._run = run
        self._held = held
        self.lowest = trust_read()

    def through(self, message: BaseMessage) -> Retain | None:
        """Pass the next message, with a decision if it is one that can be written."""
        if isinstance(message, SystemMessage) or not is_written(message):
            self.follow(message)
            return None
        return self.decision(message)

    def decision(self, message: BaseMessage) -> Retain:
        """Return what was decided about the next message, or decide now."""
        if is_summary(message) and self._in_quarantine(None):
            self.lowest = Trust.LOW
        derived = source_of(message) == "agent"
        trust = lowest_trust([self.lowest, shown_trust(message)]) if derived else trust_read()
        decision = self._retention.decision(describe(message, trust=trust), self._thread, self._run)
        self._take(message, decision)
        return decision

    def follow(self, message: BaseMessage) -> None:
        """Pass the next message, about which nothing is to be decided now."""
        known = self._retention.lately(describe(message), self._thread)
        if known is None and message.text.strip():
            held = self._in_quarantine(None if is_summary(message) else message.text)
            known = Retain(quarantine=held, reason="in quarantine") if held else None
        self._take(message, known)

    def _in_quarantine(self, text: str | None) -> bool:
        return self._held is not None and bool(self._retention.policy.policies) and self._held(text)

    def _take(self, message: BaseMessage, decision: Retain | None) -> None:
        """Let what follows come from a message as well."""
        read = Trust.HIGH if isinstance(message, AIMessage) else shown_trust(message)
        if decision is not None and (decision.quarantine or (is_summary(message) and decision.trust == Trust.LOW)):
            read = Trust.LOW
        self.lowest = lowest_trust([self.lowest, read])
