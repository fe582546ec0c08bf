"""Forget: ask the policies, write down what goes, erase it from every tier, and return the receipt."""

from typing import Any

from langchain_core.runnables import Runnable
from langgraph.checkpoint.base import BaseCheckpointSaver

from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.forgetting.execution import Execution, receipt_of, standing
from deltamem_agents.forgetting.plan import Plan, leftovers, merged, pending_plans
from deltamem_agents.forgetting.planning import make_plan
from deltamem_agents.forgetting.receipt import ForgetReceipt, Tier, TierName
from deltamem_agents.forgetting.rollback import RolledBack
from deltamem_agents.forgetting.rows import CheckpointRows
from deltamem_agents.forgetting.savers import rows_of
from deltamem_agents.forgetting.selection import Wanted
from deltamem_agents.policy import PolicyChain
from deltamem_agents.tracing import observed

__all__ = ["forget"]


def forget(
    store: MemoryStore,
    policy: PolicyChain,
    wanted: Wanted,
    *,
    reason: str,
    actor: str = "user",
    checkpointer: BaseCheckpointSaver[Any] | None = None,
    model: Runnable[Any, Any] | None = None,
    secure: bool = True,
    dry_run: bool = False,
    rolled: RolledBack | None = None,
) -> ForgetReceipt:
    """Erase what is wanted, as far as the policies let it go; `HybridMemory.forget` describes the rest.

    rolled: what a rollback takes; these checkpoints go whatever they hold, and so nothing in them is asked about.

    A call that was cut off is finished by the next one of the same namespace, whatever that asks for.
    """
    rows = None if checkpointer is None else rows_of(checkpointer)
    seen = rows if rolled is None else None
    ask = store.records.forgetting(policy)
    plan = make_plan(store.engine, seen, ask, wanted, reason=reason, actor=actor, secure=secure, rolled=rolled)
    if rows is not None:
        roots = {thread: root for thread in plan.whole if (root := rows.first(thread)) is not None}
        plan = plan.model_copy(update={"roots": roots})
    with store.engine.connect().execution_options(**READ_ONLY) as connection:
        earlier = pending_plans(connection, wanted.owner)
        plan = merged(plan, earlier)
        others = leftovers(connection, wanted.owner) if plan.secure else []
    if others:
        plan = plan.model_copy(update={"unwritten": tuple(sorted({*plan.unwritten, "index"}))})
    if dry_run:
        return receipt_of(plan, _preview(plan, rows), dry_run=True)
    with observed("forget") as forgetting:
        receipt = Execution(store, rows, model, plan, earlier, others).run()
        forgetting.count(versions=len(plan.records), messages=sum(map(len, plan.messages.values())))
    return receipt


def _preview(plan: Plan, rows: CheckpointRows | None) -> dict[TierName, Tier]:
    """Count what would go, with what an earlier call has left undone."""
    whole = 0 if rows is None else len(standing(plan, rows))
    return {
        "checkpoints": Tier(erased=sum(map(len, plan.messages.values())), note=f"{whole} whole threads"),
        "record": Tier(erased=len(plan.records) + len(plan.detached)),
        "items": Tier(erased=len(plan.items)),
    }
