"""Use the records of a namespace as a LangChain retriever."""

import asyncio
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, JsonValue, PositiveInt

from deltamem_agents.archive.filters import RecordFilter
from deltamem_agents.archive.logged import by_program
from deltamem_agents.archive.store import MemoryStore

__all__ = ["MemoryRetriever"]


class MemoryRetriever(BaseRetriever):
    """Return the `k` best records of one namespace for a question; `where` narrows the choice.

    A document's id is the record's; its metadata holds the score and the record's fields but its text.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: MemoryStore
    namespace: tuple[str, ...]
    k: PositiveInt = 10
    where: RecordFilter = RecordFilter()

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun | None = None,  # noqa: ARG002 - LangChain's signature
        **options: Any,
    ) -> list[Document]:
        hits = self.store.recall(self.namespace, query, where=self.where, limit=options.get("k", self.k))
        ids: list[JsonValue] = [hit.record.id for hit in hits]
        detail: dict[str, JsonValue] = {"found": len(ids), "records": {"returned": ids}}
        self.store.records.audit(self.namespace, by_program("recall", "searched by a retriever", detail=detail))
        return [
            Document(
                id=hit.record.id,
                page_content=hit.record.text,
                metadata={
                    "score": hit.score,
                    "thread": hit.record.thread,
                    "message_id": hit.record.message_id,
                    "role": hit.record.role,
                    "source": hit.record.source,
                    "trust": int(hit.record.trust),
                    "tags": list(hit.record.tags),
                    "created": hit.record.created.isoformat(),
                },
            )
            for hit in hits
        ]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002 - as above
        **options: Any,
    ) -> list[Document]:
        return await asyncio.to_thread(self._get_relevant_documents, query, **options)
