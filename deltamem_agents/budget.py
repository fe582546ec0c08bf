"""Keep a namespace of the archive within the budget that its policies set."""

import logging
from collections.abc import Sequence

from deltamem_agents.archive.records import Namespace, Record
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archive.usage import least_useful, usage, with_older
from deltamem_agents.audit import AuditEvent
from deltamem_agents.policy import Budget, Forget, PolicyChain, PolicyContext

__all__ = ["keep_within_budget"]

_log = logging.getLogger(__name__)
_BATCH = 100


def keep_within_budget(store: MemoryStore, policy: PolicyChain, namespace: Namespace) -> int:
    """Delete the least useful records until the rest fits; return how many went.

    The policies are asked about each version (`forget`): a record of which one is held stays, and the next one goes.
    If all that is left is held, the log says so.
    """
    budgets = [one for one in policy.policies if isinstance(one, Budget)]
    gone = kept = 0
    while budgets:
        count, size = usage(store.engine, namespace)
        records = max(0, count - min(one.records for one in budgets))
        excess = max(0, size - min(one.bytes for one in budgets))
        if not records and not excess:
            break
        candidates = least_useful(store.engine, namespace, _BATCH, kept)
        if not candidates:
            _log.warning("a namespace is over its budget by %d records and %d bytes, all held", records, excess)
            break
        chosen = _chosen(with_older(store.engine, candidates), policy, namespace, records, excess, count)
        held = [(record, decision) for record, decision in chosen if decision.action == "keep"]
        kept += len(held)
        store.records.log_holds(held)
        ids = [record.id for record, decision in chosen if decision.action == "erase"]
        gone += len(ids)
        store.records.delete(namespace, ids, event=_over(budgets))
    return gone


def _over(budgets: Sequence[Budget]) -> AuditEvent:
    """Describe why a record goes for which nobody has asked."""
    policy, version = ("+".join(getattr(one, name) for one in budgets) for name in ("name", "version"))
    reason = "the namespace is over its budget"
    return AuditEvent(action="forget", reason=reason, actor="archive", policy=policy, policy_version=version)


def _chosen(
    candidates: list[list[Record]], policy: PolicyChain, namespace: Namespace, records: int, size: int, count: int
) -> list[tuple[Record, Forget]]:
    """Decide about the first of the candidates, until enough go; `records` and `size` are too many.

    candidates: each with all its versions. A decision is given with the version that it is about.
    """
    context = PolicyContext(namespace, records=count)
    chosen = []
    for versions in candidates:
        if records <= 0 and size <= 0:
            break
        decided = [(record, policy.forget(record, context)) for record in versions]
        held = [one for one in decided if one[1].action == "keep"]
        chosen.append((held or decided)[0])
        if not held:
            records -= 1
            size -= sum(len(record.text.encode()) for record in versions)
    return chosen
