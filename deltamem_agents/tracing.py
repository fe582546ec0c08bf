"""Report recall, writing, absorbing and forgetting to OpenTelemetry, and to a run's metadata: counts, and no text."""

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.runnables.config import ensure_config, merge_configs, var_child_runnable_config

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram
    from opentelemetry.trace import Span, Tracer

__all__ = ["Observation", "observed", "run_metadata"]

Operation = Literal["recall", "write", "absorb", "forget"]
_SCOPE = "deltamem_agents"


@dataclass(frozen=True, slots=True)
class _Instruments:
    tracer: "Tracer"
    duration: "Histogram"
    amount: "Counter"


@dataclass(frozen=True, slots=True)
class Observation:
    """Take what an operation has to tell; says it to nobody where OpenTelemetry is not installed."""

    operation: Operation
    span: "Span | None" = None
    instruments: _Instruments | None = None

    def count(self, **amounts: int) -> None:
        """Add amounts by name, such as shown=3: to the span as deltamem.<name>, and to the counter deltamem.amount."""
        if self.span is None or self.instruments is None:
            return
        for name, amount in amounts.items():
            self.span.set_attribute(f"deltamem.{name}", amount)
            self.instruments.amount.add(amount, {"deltamem.operation": self.operation, "deltamem.amount": name})

    def say(self, name: str, text: str) -> None:
        """Add a text to the span; only for those who have asked for texts in their traces."""
        if self.span is not None:
            self.span.set_attribute(f"deltamem.{name}", text)


@contextlib.contextmanager
def observed(operation: Operation) -> Iterator[Observation]:
    """Put a span deltamem.<operation> around the block, and measure its seconds as deltamem.duration.

    An error is named by its class; its message might quote a text.
    """
    instruments = _instruments()
    if instruments is None:
        yield Observation(operation)
        return
    about: dict[str, str] = {"deltamem.operation": operation}
    begun = time.perf_counter()
    with instruments.tracer.start_as_current_span(
        f"deltamem.{operation}", record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield Observation(operation, span, instruments)
        except BaseException as error:
            about["error.type"] = type(error).__name__
            span.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            instruments.duration.record(time.perf_counter() - begun, about)


@contextlib.contextmanager
def run_metadata(values: Mapping[str, Any]) -> Iterator[None]:
    """Add values to the metadata of the runs inside the block, where LangSmith and every callback can see them."""
    token = var_child_runnable_config.set(merge_configs(ensure_config(), {"metadata": dict(values)}))
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


@functools.cache
def _instruments() -> _Instruments | None:
    """Return the instruments of the providers that the program has set, None without the extra `otel`."""
    try:
        from opentelemetry import metrics, trace  # noqa: PLC0415 - an optional dependency
    except ImportError:
        return None
    meter = metrics.get_meter(_SCOPE)
    return _Instruments(
        trace.get_tracer(_SCOPE),
        meter.create_histogram("deltamem.duration", unit="s", description="Time that an operation took."),
        meter.create_counter("deltamem.amount", description="Records and messages by what became of them."),
    )
