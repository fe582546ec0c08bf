"""Follow what each reply was made from, so that it is trusted no more than that."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage

from deltamem_agents.decided import Kept
from deltamem_agents.policy import Retain, Trust, describe, lowest_trust
from deltamem_agents.recalled import shown_trust
from deltamem_agents.working_memory import WorkingMemory

if TYPE_CHECKING:
    from deltamem_agents.retention import Retention

__all__ = ["Lineage", "made_from"]


def made_from(
    message: BaseMessage,
    before: Sequence[tuple[bytes, BaseMessage]],
    decided: Mapping[bytes, Kept],
    memory: bytes | str | None,
) -> Trust:
    """Return the lowest trust of what a message may come from; HIGH for what is no reply.

    before: the messages before it, with their digests. decided: what was decided about messages, by their digests.
    memory: what it has absorbed is not read any more.
    """
    if not isinstance(message, AIMessage):
        return Trust.HIGH
    recalled = {digest: shown_trust(said) for digest, said in before if not isinstance(said, AIMessage)}
    if lowest_trust(recalled.values()) < Trust.HIGH and memory is not None:
        for digest in WorkingMemory.from_bytes(memory).digests:
            recalled.pop(digest, None)
    held = any(digest in decided and decided[digest].quarantined for digest, _ in before)
    return lowest_trust([shown_trust(message), *recalled.values(), Trust.LOW if held else Trust.HIGH])


class Lineage:
    """Go through a thread's messages in their order, and decide about each with the trust of what it came from.

    A reply may come from every quarantined text and every result of the search tool before it, and from what was
    recalled for it. held: tells whether the archive has a text of the thread in quarantine; asked about messages whose
    decision this process has forgotten.
    """

    def __init__(
        self,
        retention: "Retention",
        thread: str | None,
        run: Mapping[str, Any],
        held: Callable[[str], bool] | None = None,
    ) -> None:
        self._retention = retention
        self._thread = thread
        self._run = run
        self._held = held
        self._lowest = Trust.HIGH

    def decision(self, message: BaseMessage) -> Retain:
        """Return what was decided about the next message, or decide now."""
        trust = lowest_trust([self._lowest, shown_trust(message)]) if isinstance(message, AIMessage) else Trust.HIGH
        decision = self._retention.decision(describe(message, trust=trust), self._thread, self._run)
        self._take(message, quarantined=decision.quarantine)
        return decision

    def follow(self, message: BaseMessage) -> None:
        """Pass the next message, about which nothing is to be decided now."""
        known = self._retention.lately(describe(message), self._thread)
        if known is None:
            held = self._held if self._retention.policy.policies and message.text.strip() else None
            self._take(message, quarantined=held is not None and held(message.text))
        else:
            self._take(message, quarantined=known.quarantine)

    def _take(self, message: BaseMessage, *, quarantined: bool) -> None:
        recalled = Trust.HIGH if isinstance(message, AIMessage) else shown_trust(message)
        self._lowest = lowest_trust([self._lowest, Trust.LOW if quarantined else Trust.HIGH, recalled])
