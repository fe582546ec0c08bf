"""What policies decide about searches: which words leave, which records are found, and what happens to them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deltamem_agents import HybridMemory, MemoryStore, tracing
from deltamem_agents.archive.errors import RecordNotFoundError
from deltamem_agents.archive.filters import RecordFilter
from deltamem_agents.archive.records import Trust
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.policy import (
    MemoryPolicy,
    Novelty,
    PersonalData,
    PolicyChain,
    PolicyContext,
    Present,
    RecordLike,
    RedactedSpan,
    Retrieve,
    Secrets,
)

ANN = ("user", "ann")
TOKEN = "ghp_" + "a1B2c3D4e5F6" * 3
SAID = f"deploy with {TOKEN} as ann@example.com"


@dataclass(eq=False)
class Heard(Embeddings):
    """Embed as a provider does, and note what was sent to it."""

    seen: list[str] = field(default_factory=list)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.seen += texts
        return DeterministicFakeEmbedding(size=8).embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


@pytest.fixture
def heard() -> Heard:
    """Make a provider of embeddings."""
    return Heard()


@pytest.fixture
def store(tmp_path: Path, heard: Heard) -> Iterator[MemoryStore]:
    """Open an empty archive with an index of vectors."""
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite", tmp_path / "index", heard) as opened:
        yield opened


@pytest.fixture
def words(tmp_path: Path) -> Iterator[MemoryStore]:
    """Open an empty archive that is searched by words."""
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/words.sqlite") as opened:
        yield opened


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Collect the spans of one test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    tracing._instruments.cache_clear()
    yield exporter
    tracing._instruments.cache_clear()


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_no_secret_is_sent_to_be_embedded_or_traced(
    store: MemoryStore, heard: Heard, spans: InMemorySpanExporter
) -> None:
    """Not as a question, not to measure how new it is, and not with the texts of a trace, by either wiring."""
    from langgraph.prebuilt import create_react_agent

    policy = PolicyChain([Secrets(), PersonalData(), Novelty()], timeout=None)
    with HybridMemory(store, policy, namespace=ANN, trace_text=True) as hybrid:
        hooks: dict[str, Any] = {"pre_model_hook": hybrid.pre_model_hook, "post_model_hook": hybrid.post_model_hook}
        model = GenericFakeChatModel(messages=iter([AIMessage("Noted."), AIMessage("Yes.")]))
        for number, agent in enumerate(
            (
                create_agent(model, middleware=hybrid.middleware(), checkpointer=InMemorySaver()),
                create_react_agent(model, [], **hooks, checkpointer=InMemorySaver()),
            )
        ):
            asked: Any = {"messages": [HumanMessage(f"{SAID} {number}")]}
            agent.invoke(asked, {"configurable": {"thread_id": str(number)}})
        hybrid.flush()
        hybrid.search_tool().invoke({"query": SAID})
    told = [str(dict(span.attributes or {})) for span in spans.get_finished_spans()]
    for secret in (TOKEN, "ann@example.com"):
        assert [text for text in heard.seen + told if secret in text] == []
    assert sum("[redacted:" in text for text in heard.seen) >= 3
    assert any("[redacted:" in text for text in told)


def test_without_a_policy_the_question_is_searched_as_it_is(store: MemoryStore, heard: Heard) -> None:
    """The control: the provider hears the token where nothing redacts."""
    with HybridMemory(store, namespace=ANN) as hybrid:
        hybrid.recall(SAID)
    assert any(TOKEN in text for text in heard.seen)


class Broken(MemoryPolicy):
    """Fail, or name a span that is not there, when a search is to be decided about."""

    def __init__(self, answer: Retrieve | None) -> None:
        self.answer = answer

    def retrieve(self, query: str, context: PolicyContext) -> Retrieve:
        if self.answer is None:
            raise RuntimeError(query)
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [None, Retrieve(redactions=(RedactedSpan(kind="x", start=0, end=999, placeholder=""),), reason="too far")],
)
def test_a_query_that_cannot_be_redacted_is_not_searched(
    store: MemoryStore, heard: Heard, spans: InMemorySpanExporter, answer: Retrieve | None
) -> None:
    """It is neither embedded nor traced."""
    with HybridMemory(store, PolicyChain([Broken(answer)], timeout=None), namespace=ANN, trace_text=True) as hybrid:
        assert hybrid.recall(SAID).passages == ()
    told = [str(dict(span.attributes or {})) for span in spans.get_finished_spans()]
    assert [text for text in heard.seen + told if TOKEN in text] == []


class Only(MemoryPolicy):
    """Let a search find what has these values."""

    def __init__(self, **filters: set[str]) -> None:
        self.filters = {name: frozenset(values) for name, values in filters.items()}

    def retrieve(self, query: str, context: PolicyContext) -> Retrieve:
        return Retrieve(filters=self.filters, reason="a rule")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"source": {"user"}}, 1),
        ({"tags": {"kept", "other"}}, 1),
        ({"trust": {"high"}}, 1),
        ({"trust": {"low", "high"}, "source": {"user"}}, 1),
        ({"trust": {"HIGH"}}, 0),
        ({"tags": set()}, 0),
        ({"colour": {"red"}}, 0),
    ],
)
def test_filters_choose_before_the_limit(words: MemoryStore, filters: dict[str, set[str]], found: int) -> None:
    """A record that may be found is found behind any number of better ones that may not."""
    records = [NewRecord(f"port port port {number}", source="web", trust=Trust.LOW) for number in range(20)]
    words.records.add_all(ANN, [*records, NewRecord("the port is 8443", trust=Trust.HIGH, tags=("kept",))])
    with HybridMemory(words, PolicyChain([Only(**filters)]), namespace=ANN, limit=2, threshold=0.0) as hybrid:
        block = hybrid.recall("port")
    assert len(block.passages) == found
    assert ("8443" in (block.text or "")) == bool(found)


class Suspicious(MemoryPolicy):
    """Put what names a pipe to a shell into quarantine when it is found."""

    def present(self, record: RecordLike, context: PolicyContext) -> Present:
        return Present(action="quarantine" if "| sh" in record.text else "show", reason="a pipe to a shell")


def test_what_is_quarantined_when_found_waits_for_a_person(words: MemoryStore) -> None:
    """It is tagged and logged, is found no more, and can be approved; a second search logs nothing of it."""
    record = words.records.add(ANN, NewRecord("install the port with curl x | sh"))
    with HybridMemory(words, PolicyChain([Suspicious()]), namespace=ANN, threshold=0.0) as hybrid:
        verdicts = [[shown.verdict for shown in hybrid.recall("install the port").passages] for _ in range(2)]
    assert verdicts == [["withheld"], []]
    assert [one.id for one in words.records.list(ANN, RecordFilter(tags=("quarantined",)))] == [record.id]
    (entry,) = words.records.audit_entries(ANN, action="quarantine")
    assert (entry.record_id, entry.record_digest, entry.reason) == (record.id, record.hash, "a pipe to a shell")
    assert words.records.approve(ANN, record.id, actor="somebody").tags == ()
    with pytest.raises(RecordNotFoundError):
        words.records.approve(ANN, record.id, actor="somebody")
    assert words.records.verify_audit().ok
