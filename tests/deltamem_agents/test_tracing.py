"""OpenTelemetry sees what the memory does, in counts; texts only where somebody has asked for them."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deltamem_agents import ChatDeltaMem, HybridMemory, MemoryStore, tracing
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.policy import MemoryPolicy, PolicyMessage, Retain, Signals

ANN = ("user", "ann")


class NoGreetings(MemoryPolicy):
    """Keep no greetings."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        return Retain(archive=message.text != "hello", reason="a rule")


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


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> InMemoryMetricReader:
    """Collect the metrics of one test; ask for it before `spans`."""
    reader = InMemoryMetricReader()
    monkeypatch.setattr(metrics, "get_meter", MeterProvider([reader]).get_meter)
    return reader


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    """Open an archive that knows a port."""
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as opened:
        opened.records.add(ANN, NewRecord("The port is 8443."))
        yield opened


def attributes(exporter: InMemorySpanExporter) -> dict[str, dict[str, Any]]:
    """Return the attributes of each span by its name."""
    return {span.name: dict(span.attributes or {}) for span in exporter.get_finished_spans()}


def points(reader: InMemoryMetricReader, name: str) -> list[tuple[dict[str, Any], Any]]:
    """Return the points of a metric, with their attributes."""
    data = reader.get_metrics_data()
    assert data is not None
    found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == name]
    return [(dict(point.attributes or {}), point) for metric in found for point in metric.data.data_points]


@pytest.mark.parametrize("trace_text", [False, True])
def test_recall_and_writing_are_spans_with_counts(
    reader: InMemoryMetricReader, spans: InMemorySpanExporter, store: MemoryStore, *, trace_text: bool
) -> None:
    """Each says how much, under the span that surrounds it; the question stands in it only if that is switched on."""
    outer = trace.get_tracer("test").start_as_current_span("turn")
    with HybridMemory(store, NoGreetings(), namespace=ANN, trace_text=trace_text) as hybrid, outer as turn:
        hybrid.recall("Which port?")
        hybrid.archive([HumanMessage("hello", id="1"), HumanMessage("It is nine.", id="2")], "one")
        hybrid.flush()
    found = attributes(spans)
    assert (found["deltamem.recall"]["deltamem.found"], found["deltamem.recall"]["deltamem.shown"]) == (1, 1)
    assert found["deltamem.write"] == {"deltamem.kept": 1, "deltamem.refused": 1, "deltamem.gone": 0}
    parents = {span.name: span.parent for span in spans.get_finished_spans()}
    for name in ("deltamem.recall", "deltamem.write"):
        parent = parents[name]
        assert parent is not None
        assert parent.span_id == turn.get_span_context().span_id
    assert ("Which port?" in str(found)) is trace_text
    assert ("8443" in str(found)) is trace_text
    timed = {about["deltamem.operation"]: point.count for about, point in points(reader, "deltamem.duration")}
    assert timed == {"recall": 1, "write": 1}
    amounts = {about["deltamem.amount"]: point.value for about, point in points(reader, "deltamem.amount")}
    assert amounts == {"found": 1, "shown": 1, "kept": 1, "refused": 1, "gone": 0}


def test_deleting_is_a_span(reader: InMemoryMetricReader, spans: InMemorySpanExporter, store: MemoryStore) -> None:
    """It says how many versions went."""
    store.records.delete(ANN, [record.id for record in store.records.list(ANN)])
    assert attributes(spans)["deltamem.forget"] == {"deltamem.versions": 1}
    assert [point.value for _, point in points(reader, "deltamem.amount")] == [1]


def test_an_error_is_named_by_its_class_alone(reader: InMemoryMetricReader, spans: InMemorySpanExporter) -> None:
    """A message of an error may quote a text, so the span does not have it."""
    with pytest.raises(ValueError, match="quotes"), tracing.observed("forget"):
        raise ValueError("quotes a text")
    (span,) = spans.get_finished_spans()
    assert dict(span.attributes or {}) == {"error.type": "ValueError"}
    assert (span.events, span.status.description) == ((), None)
    ((about, point),) = points(reader, "deltamem.duration")
    assert (about, point.count) == ({"deltamem.operation": "forget", "error.type": "ValueError"}, 1)


def test_absorbing_is_a_span_and_an_entry_of_the_log(
    reader: InMemoryMetricReader,
    spans: InMemorySpanExporter,
    store: MemoryStore,
    make_model: Callable[..., ChatDeltaMem],
) -> None:
    """A turn that folds messages into the working memory says how many, in the trace and in the audit log."""
    with HybridMemory(store, namespace=ANN) as hybrid:
        model = make_model(window_tokens=60, keep_tokens=20, max_tokens=8)
        agent = create_agent(model, middleware=hybrid.middleware(), checkpointer=InMemorySaver())
        for _ in range(4):
            agent.invoke({"messages": [HumanMessage("hello you " * 8)]}, {"configurable": {"thread_id": "one"}})
    logged = store.records.audit_entries(ANN, action="absorb")
    assert logged
    assert all(entry.thread == "one" for entry in logged)
    absorbed = [dict(s.attributes or {}) for s in spans.get_finished_spans() if s.name == "deltamem.absorb"]
    told = [(entry.detail["messages"], entry.detail["tokens"]) for entry in reversed(logged)]
    assert [(one["deltamem.messages"], one["deltamem.tokens"]) for one in absorbed] == told


class Watching(BaseCallbackHandler):
    """Keep the metadata of each model run, as LangSmith's tracer does."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, *, metadata: Any = None, **_: Any) -> None:
        self.seen.append(metadata)


async def test_the_model_run_says_what_was_recalled_for_it(store: MemoryStore) -> None:
    """Counts are in the run's metadata, in both call styles, and nothing of them is left for other runs."""
    watching = Watching()
    config: Any = {"callbacks": [watching], "metadata": {"mine": 1}}
    with HybridMemory(store, namespace=ANN) as hybrid:
        model = GenericFakeChatModel(messages=iter([AIMessage("8443."), AIMessage("8443."), AIMessage("Yes.")]))
        agent = create_agent(model, middleware=hybrid.middleware())
        agent.invoke({"messages": [HumanMessage("Which port?")]}, config)
        await agent.ainvoke({"messages": [HumanMessage("Which port?")]}, config)
        model.invoke("Is it?", config)
    told = [(one.get("mine"), one.get("deltamem_shown")) for one in watching.seen]
    assert told == [(1, 1), (1, 1), (1, None)]


def test_without_opentelemetry_nothing_is_told_and_everything_works(
    monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    """The extra is optional."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    tracing._instruments.cache_clear()
    with HybridMemory(store, namespace=ANN, trace_text=True) as hybrid:
        assert hybrid.recall("Which port?").text is not None
    assert tracing._instruments() is None
    tracing._instruments.cache_clear()
