"""Jobs of one engine: their events, turns, errors and cancelling, as a thread sees them."""

import contextvars
import gc
import threading
import time
from collections.abc import Generator
from typing import Any

import pytest

from backbone.engine import Engine

THREAD = "backbone-inference"


def count(to: int) -> Generator[int, None, None]:
    yield from range(to)


def test_events_come_in_order_and_none_is_not_delivered(engine: Engine) -> None:
    """A consumer gets what the job yields, except None, and then the loop ends."""

    def steps() -> Generator[str | None, None, int]:
        yield "a"
        yield None
        yield "b"
        return 5

    assert list(engine.submit(steps)) == ["a", "b"]


def test_live_jobs_take_turns(engine: Engine) -> None:
    """A short job that comes after a long one has a step for each of the long one's, and ends early."""
    order: list[str] = []
    both = threading.Event()

    def job(name: str, steps: int) -> Generator[str, None, None]:
        both.wait(10)
        for _ in range(steps):
            order.append(name)
            yield name

    long = engine.submit(lambda: job("long", 500))
    short = engine.submit(lambda: job("short", 5))
    both.set()
    assert list(short) == ["short"] * 5
    assert len(list(long)) == 500
    assert order[:10] == ["long", "short"] * 5


def test_leaving_the_loop_cancels_the_job(engine: Engine, watched: Any) -> None:
    """A broken-off `for` closes the generator, on the inference thread, at its next step."""
    for event in engine.submit(watched):
        if event == 3:
            break
    assert watched.closed.wait(10)
    assert watched.thread is not None
    assert watched.thread.name == THREAD
    stopped_at = watched.steps
    time.sleep(0.02)
    assert watched.steps == stopped_at


def test_a_dropped_job_is_cancelled(engine: Engine, watched: Any) -> None:
    """Nobody can read a job that nobody holds, so it stops."""
    job = engine.submit(watched)
    assert watched.started.wait(10)
    del job
    gc.collect()
    assert watched.closed.wait(10)


def test_a_job_cancelled_before_its_turn_never_runs(engine: Engine, watched: Any) -> None:
    """Nothing of a job is run that was cancelled while it waited for the thread."""
    gate = threading.Event()

    def hold() -> Generator[None, None, None]:
        gate.wait(10)
        yield

    holding = engine.submit(hold)
    job = engine.submit(watched)
    job.cancel()
    gate.set()
    assert list(holding) == []
    assert list(job) == []
    assert list(engine.submit(lambda: count(1))) == [0]
    assert watched.steps == 0


def test_cancel_ends_a_waiting_consumer(engine: Engine, watched: Any) -> None:
    """A consumer that waits in another thread is let go, without an error, and without the rest of the events."""
    job = engine.submit(watched)
    received: list[int] = []
    first = threading.Event()

    def consume() -> None:
        for event in job:
            received.append(event)
            first.set()

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert first.wait(10)
    job.cancel()
    consumer.join(10)
    assert not consumer.is_alive()
    assert watched.closed.wait(10)


@pytest.mark.parametrize("fails", [False, True])
def test_a_job_that_is_cancelled_after_its_end_delivers_no_more(engine: Engine, fails: bool) -> None:
    """Neither events that were made before nor the error that ended it reach whoever has cancelled it."""

    def steps() -> Generator[int, None, None]:
        yield from range(3)
        if fails:
            raise LookupError("broken")

    job = engine.submit(steps)
    assert list(engine.submit(lambda: count(5))) == [0, 1, 2, 3, 4]  # jobs take turns, so the first has ended
    events = iter(job)
    assert next(events) == 0
    job.cancel()
    assert list(events) == []


def test_an_error_reaches_the_consumer_after_the_events_before_it(engine: Engine) -> None:
    """What a job raises is raised where its events are read, and the next job runs."""

    def steps() -> Generator[int, None, None]:
        yield 1
        raise LookupError("broken")

    received: list[int] = []
    with pytest.raises(LookupError, match="broken"):
        received.extend(engine.submit(steps))
    assert received == [1]
    assert list(engine.submit(lambda: count(2))) == [0, 1]


def test_a_job_that_cannot_be_made_fails_alone(engine: Engine) -> None:
    """If making the generator raises, the consumer gets that error and the engine lives."""

    def steps() -> Generator[int, None, None]:
        raise KeyError("no such prompt")

    with pytest.raises(KeyError, match="no such prompt"):
        list(engine.submit(steps))
    assert list(engine.submit(lambda: count(1))) == [0]


def test_a_failure_while_closing_is_logged(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """A cancelled job that fails in its clean-up goes to the log, and the engine lives."""

    def steps() -> Generator[int, None, None]:
        try:
            while True:
                yield 1
        finally:
            raise OSError("disk full")

    job = engine.submit(steps)
    next(iter(job))
    assert list(engine.submit(lambda: count(1))) == [0]
    assert "disk full" in caplog.text


def test_context_variables_stay_in_their_job(engine: Engine) -> None:
    """A job sees neither its consumer's context variables nor another job's, but keeps its own between steps."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    variable.set("consumer")

    def job(name: str) -> Generator[str, None, None]:
        yield variable.get()
        variable.set(name)
        yield variable.get()
        yield variable.get()

    one, other = engine.submit(lambda: job("one")), engine.submit(lambda: job("other"))
    assert [list(one), list(other)] == [["unset", "one", "one"], ["unset", "other", "other"]]
    assert variable.get() == "consumer"
