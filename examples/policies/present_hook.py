"""A hook that decides what a prompt gets to see of what was found: python -m examples.policies.present_hook."""

import re
import tempfile
from collections.abc import Collection
from datetime import timedelta

from langchain_core.messages import HumanMessage

from deltamem_agents import HybridMemory, MemoryStore
from deltamem_agents.policy import MemoryPolicy, PolicyContext, Present, RecordLike, RedactedSpan

__all__ = ["SALARIES", "NeedToKnow", "recalled"]

MONEY = re.compile(r"[$€]\s?\d[\d.,]*")
SALARIES = ("Ann earns $4,200 a month.", "Ann is on holiday until Monday.")


class NeedToKnow(MemoryPolicy):
    """Show amounts of money to some namespaces only, and nobody what is older than a quarter."""

    def __init__(self, allowed: Collection[tuple[str, ...]], oldest: timedelta = timedelta(days=90)) -> None:
        """Name the namespaces that may read amounts."""
        self.allowed = allowed
        self.oldest = oldest

    def present(self, record: RecordLike, context: PolicyContext) -> Present:
        """Withhold what is old, mask amounts, show the rest."""
        if context.now - record.created > self.oldest:
            return Present(action="withhold", reason="older than a quarter")
        if context.namespace in self.allowed:
            return Present(reason="may read amounts")
        spans = tuple(
            RedactedSpan(kind="amount", start=found.start(), end=found.end(), placeholder="[amount]")
            for found in MONEY.finditer(record.text)
        )
        if not spans:
            return Present(reason="holds no amount")
        return Present(action="mask", redactions=spans, reason="amounts are for payroll")


def recalled(namespace: tuple[str, ...], question: str) -> str:
    """Return the block that a prompt of this namespace gets for a question."""
    policy = NeedToKnow(allowed={("payroll",)})
    with (
        tempfile.TemporaryDirectory() as folder,
        MemoryStore.from_url(f"sqlite:///{folder}/archive.sqlite") as store,
        HybridMemory(store, policy, namespace=namespace) as memory,
    ):
        memory.archive([HumanMessage(text, id=str(at)) for at, text in enumerate(SALARIES)], "t")
        memory.flush()
        return memory.recall(question).text or ""


def main() -> None:
    """Ask the same question in two namespaces."""
    for namespace in (("payroll",), ("support",)):
        print(f"--- {namespace[0]} is shown\n{recalled(namespace, 'What does Ann earn a month?')}\n")


if __name__ == "__main__":
    main()
