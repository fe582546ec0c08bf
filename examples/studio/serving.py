"""Open what an agent needs that LangGraph's server runs; the server brings its own checkpointer."""

from deltamem_agents import ChatDeltaMem, HybridMemory, MemoryStore
from deltamem_agents.archive.records import Namespace
from deltamem_agents.cli.terminal import open_model
from deltamem_agents.policy import default_policy
from deltamem_agents.settings import Settings

__all__ = ["open_memory"]


def open_memory(namespace: Namespace, settings: Settings) -> tuple[ChatDeltaMem, HybridMemory]:
    """Return the model and the archive that the settings name; both stay open until the server ends.

    A recalled block may take a quarter of the window. Raises DeltaMemError for what cannot be opened.
    """
    model = open_model(settings)
    store = MemoryStore.from_url(settings.archive_db, settings.archive_index, settings.archive_embeddings)
    budget = model.window[0] // 4
    return model, HybridMemory(store, default_policy(), namespace=namespace, budget_tokens=budget)
