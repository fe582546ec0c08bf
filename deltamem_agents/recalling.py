"""Hand messages to the archive, and recall from it what suits a question."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from difflib import SequenceMatcher
from types import TracebackType
from typing import Self

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.utils import count_tokens_approximately

from backbone import ConfigError
from deltamem_agents.archive.filters import RecordFilter
from deltamem_agents.archive.records import Namespace, namespace_key
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archiving import ArchiveWriter
from deltamem_agents.audited import absorbed, searched
from deltamem_agents.memory_cell import TurnReport
from deltamem_agents.messages import RECALLED_KEY, UNWRITTEN, to_entries
from deltamem_agents.policy import MemoryPolicy, PolicyChain, PolicyContext, Retrieve
from deltamem_agents.policy.hooks import describe
from deltamem_agents.presenting import present_hits
from deltamem_agents.recalled import RecalledBlock, lay_out_block, recalled_report
from deltamem_agents.retention import Retention
from deltamem_agents.running import current_place
from deltamem_agents.tracing import observed
from deltamem_agents.working_memory import WorkingMemory

__all__ = ["DEFAULT_THRESHOLD", "ArchiveRecall", "in_window"]

DEFAULT_THRESHOLD = 0.55
_SEEN = 50_000
_COMPARED = 4  # records that a text is compared with
_COMPARED_WORDS = 400
_Key = tuple[str | None, str, int]


class ArchiveRecall:
    """Keep what is said in one namespace of a store, and find it again; `HybridMemory` describes the options."""

    def __init__(
        self,
        store: MemoryStore,
        policy: PolicyChain | MemoryPolicy | None = None,
        namespace: Namespace = (),
        *,
        limit: int = 8,
        threshold: float = DEFAULT_THRESHOLD,
        budget_tokens: int = 256,
        trace_text: bool = False,
    ) -> None:
        namespace_key(namespace)
        if limit < 1 or budget_tokens < 1 or not 0 <= threshold <= 1:
            raise ConfigError(
                "limit and budget_tokens must be at least 1 and threshold from 0 to 1; "
                f"got {limit}, {budget_tokens} and {threshold}"
            )
        self.store = store
        self.namespace = namespace
        self.limit = limit
        self.threshold = threshold
        self.budget_tokens = budget_tokens
        self.trace_text = trace_text
        self.policy = store.rule(policy, namespace)
        self.retention = Retention(self.policy, namespace=namespace, similarity=self._similarity)
        self._writer = ArchiveWriter(store, self.retention)
        self._seen: set[_Key] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is waiting; the store stays open."""
        self._writer.close()

    def archive(self, messages: Sequence[BaseMessage], thread: str | None) -> None:
        """Hand a thread's messages to the archive's thread and return at once.

        Those that were handed over before are not written again; give all of them, since replies come from them.
        """
        with self._lock:
            if len(self._seen) > _SEEN:
                self._seen.clear()  # the record itself knows them, and is only asked more often
            keyed = [(m, None if m.id is None else (thread, m.id, _said(m))) for m in messages]
            fresh = {at for at, (_, key) in enumerate(keyed) if key not in self._seen}
            self._seen.update(key for _, key in keyed if key is not None)
        keys = {keyed[at][1] for at in fresh}
        self._writer.put(self.namespace, tuple(messages), fresh, thread, lambda: self._forget_seen(keys))

    def _forget_seen(self, keys: AbstractSet[_Key | None]) -> None:
        """Let messages be handed over again when their thread goes on."""
        with self._lock:
            self._seen -= keys

    def flush(self, timeout: float = 60.0) -> None:
        """Wait until everything handed over is in the record and in the index; raises ArchiveError if it is not."""
        self._writer.flush(timeout)
        self.store.flush(timeout)

    def recall(
        self,
        query: str,
        *,
        in_prompt: Sequence[BaseMessage] = (),
        count_tokens: Callable[[str], int] | None = None,
        context: PolicyContext | None = None,
    ) -> RecalledBlock:
        """Search the archive and lay out what suits the query; what the prompt holds already is left out.

        context: what policies are told of the run; None is that of the graph that calls. What policies redact of the
        query is neither searched for, nor embedded, nor traced.
        """
        place = current_place()
        context = context or PolicyContext(self.namespace, place.thread, run=place.run)
        with observed("recall") as recall:
            decision = self.policy.retrieve(query, context)
            block = self._recall(query, decision, in_prompt, count_tokens or _approximate_tokens, context)
            verdicts = Counter(passage.verdict.replace(" ", "_") for passage in block.passages)
            recall.count(found=len(block.passages), **verdicts)
            # A policy that fails redacts nothing, and refuses the search.
            if self.trace_text and decision.allowed:
                recall.say("query", _asked(query, decision))
                recall.say("recalled", block.text or "")
        return block

    def _recall(
        self,
        query: str,
        decision: Retrieve,
        in_prompt: Sequence[BaseMessage],
        count_tokens: Callable[[str], int],
        context: PolicyContext,
    ) -> RecalledBlock:
        if not decision.allowed:
            self._writer.log(self.namespace, [searched(query, decision, ())])
            return RecalledBlock(None, ())
        asked, where = _asked(query, decision), RecordFilter(allowed=decision.filters)
        hits = self.store.recall(self.namespace, asked, where=where, limit=min(self.limit, decision.k or self.limit))
        shown = {message.text for message in in_prompt}
        records = self.store.records
        passages, withheld, events = present_hits(self.policy, records, self.namespace, asked, hits, context)
        block = lay_out_block(
            passages,
            query=asked,
            threshold=self.threshold,
            budget_tokens=min(self.budget_tokens, decision.budget or self.budget_tokens),
            count_tokens=count_tokens,
            in_window=lambda passage: passage.text in shown,
        )
        found = (*block.passages, *withheld)
        self._writer.log(self.namespace, [searched(query, decision, found), *events])
        return RecalledBlock(block.text, found)

    def log_absorbed(self, turns: Sequence[TurnReport]) -> None:
        """Log what model calls have absorbed; the memory itself is in the checkpoint that follows."""
        if turns:
            self._writer.log(self.namespace, absorbed(turns))

    def _similarity(self, text: str, context: PolicyContext, message_id: str) -> float | None:
        """Say how near a text is to the nearest other record; in words, where vectors cannot tell."""
        self._writer.wait()
        hits = self.store.recall(self.namespace, text, limit=_COMPARED) if text.strip() else []
        others = [hit for hit in hits if (hit.record.thread, hit.record.message_id) != (context.thread, message_id)]
        return max((likeness(text, hit.record.text, hit.meaning) for hit in others), default=0.0)

    def with_recalled(
        self,
        messages: Sequence[BaseMessage],
        *,
        in_prompt: Sequence[BaseMessage],
        as_system: bool,
        count_tokens: Callable[[str], int] | None = None,
        context: PolicyContext | None = None,
    ) -> tuple[list[BaseMessage], RecalledBlock | None]:
        """Put the recalled block directly before the newest user message, if there is one and something was found.

        as_system: as a system message, which ChatDeltaMem never writes; many hosted models refuse one there, and get a
        user message.
        """
        at = next((i for i in range(len(messages) - 1, -1, -1) if isinstance(messages[i], HumanMessage)), None)
        if at is None:
            return list(messages), None
        block = self.recall(messages[at].text, in_prompt=in_prompt, count_tokens=count_tokens, context=context)
        if block.text is None:
            return list(messages), block
        kind = SystemMessage if as_system else HumanMessage
        # With what it shows, so that what is made from it is trusted no more than that.
        told = {UNWRITTEN: True, RECALLED_KEY: recalled_report(block, "")}
        shown = kind(block.text, id=f"recalled-{messages[at].id}", additional_kwargs=told)
        return [*messages[:at], shown, *messages[at:]], block


def likeness(text: str, other: str, meaning: float | None) -> float:
    """Say from 0 to 1 how alike two texts are; 1 is the same words in the same order.

    meaning: their cosine similarity, where it is known.
    """
    words, others = (part.split()[:_COMPARED_WORDS] for part in (text, other))
    return max(meaning or 0.0, SequenceMatcher(None, words, others, autojunk=False).ratio())


def _said(message: BaseMessage) -> int:
    """Tell apart what policies see of a message, which may be edited under its id."""
    seen = describe(message)
    return hash((seen.text, seen.calls))


def _asked(query: str, decision: Retrieve) -> str:
    return query if decision.query is None else decision.query


def _approximate_tokens(text: str) -> int:
    return count_tokens_approximately([text], extra_tokens_per_message=0)


def in_window(messages: Sequence[BaseMessage], memory: WorkingMemory | None) -> list[BaseMessage]:
    """Return the messages that a working memory has not absorbed: those that the prompt can show."""
    if memory is None or not messages:
        return list(messages)
    absorbed = set(memory.digests)
    return [m for m, entry in zip(messages, to_entries(messages), strict=True) if entry.digest not in absorbed]
