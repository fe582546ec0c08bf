"""Ask the policies about each record that a search has found: shown, masked, withheld, or put into quarantine."""

from collections.abc import Sequence

from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.records import Namespace
from deltamem_agents.archive.search import Hit
from deltamem_agents.audit import AuditEvent
from deltamem_agents.audited import held, presented
from deltamem_agents.policy import PolicyChain, PolicyContext
from deltamem_agents.recalled import CITATION_DIGITS, Passage, Shown
from deltamem_agents.terms import terms_of

__all__ = ["present_hits", "relevance"]

_UNRELATED = 0.1  # cosine of texts that have nothing to do with each other, about, by all-MiniLM-L6-v2


def present_hits(
    policy: PolicyChain,
    records: RecordStore,
    namespace: Namespace,
    query: str,
    hits: Sequence[Hit],
    context: PolicyContext,
) -> tuple[list[Passage], list[Shown], list[AuditEvent]]:
    """Return the passages that may be shown, what is not shown, and what the log is to say of both.

    Masked text is what is shown and what relevance is measured on. What a policy quarantines is tagged and logged at
    once, so that no search finds it until it is approved.
    """
    passages, withheld, events = [], [], []
    for hit in hits:
        record, decision = hit.record, policy.present(hit.record, context)
        text = record.text if decision.text is None else decision.text
        score = relevance(query, text, hit.meaning)
        if decision.action in {"show", "mask"}:
            passages.append(Passage(record.id, text, record.source, record.created, score, record.trust))
        else:
            withheld.append(Shown(record.id, record.id[-CITATION_DIGITS:], score, "withheld", record.trust))
        if decision.action == "quarantine":
            records.quarantine(namespace, record.id, held(record, decision))
        if decision.action != "show":
            events.append(presented(record, decision))
    return passages, withheld, events


def relevance(query: str, text: str, meaning: float | None) -> float:
    """Say from 0 to 1 how much a text has to do with a query, whatever else the archive holds.

    The share s of the query's words that occur in the text and their cosine similarity c are two witnesses, of which
    one can be enough: 1 - (1 - s)(1 - c), their noisy-or. Where vectors were not searched, c is that of any two texts.
    """
    wanted = set(terms_of(query))
    shared = len(wanted & set(terms_of(text))) / len(wanted) if wanted else 0.0
    cosine = _UNRELATED if meaning is None else max(0.0, meaning)
    return 1 - (1 - shared) * (1 - cosine)
