import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import cast

import pytest
import torch

from backbone import Backbone, EngineClosedError, MemoryModel
from backbone.engine import Engine
from backbone.generation import Finished, Sampling, TokenPrompt, decode, prefill

NAME = "backbone-inference"


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Give an engine whose jobs here need no model."""
    engine = Engine(cast("Backbone", None))
    yield engine
    engine.close()


def count(to: int) -> Generator[int, None, None]:
    yield from range(to)


class Watched:
    """Make an endless job, and note its steps and its end."""

    def __init__(self) -> None:
        self.steps = 0
        self.started = threading.Event()
        self.thread: threading.Thread | None = None
        self.closed = threading.Event()

    def __call__(self) -> Generator[int, None, None]:
        """Count steps until closed."""
        try:
            while True:
                self.steps += 1
                self.started.set()
                yield self.steps
                time.sleep(0.001)
        finally:
            self.thread = threading.current_thread()
            self.closed.set()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def test_events_come_in_order_and_none_is_not_delivered(engine: Engine) -> None:
    """A consumer gets what the job yields, except None, and then the loop ends."""

    def steps() -> Generator[str | None, None, int]:
        yield "a"
        yield None
        yield "b"
        return 5

    assert list(engine.submit(steps)) == ["a", "b"]


def test_the_thread_starts_with_the_first_job_and_is_one_daemon(engine: Engine) -> None:
    """An engine that nobody uses costs no thread, and all its jobs run on the same one, without gradients."""
    before = threads()

    def steps() -> Generator[tuple[threading.Thread, bool], None, None]:
        yield threading.current_thread(), torch.is_grad_enabled()

    assert threads() == before
    (first,), (second,) = engine.submit(steps), engine.submit(steps)
    assert first == second
    thread, grad = first
    assert thread in threads()
    assert thread.daemon
    assert not grad
    assert torch.is_grad_enabled()


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


def test_leaving_the_loop_cancels_the_job(engine: Engine) -> None:
    """A broken-off `for` closes the generator, on the inference thread, at its next step."""
    watched = Watched()
    for event in engine.submit(watched):
        if event == 3:
            break
    assert watched.closed.wait(10)
    assert watched.thread in threads()
    stopped_at = watched.steps
    time.sleep(0.02)
    assert watched.steps == stopped_at


def test_a_dropped_job_is_cancelled(engine: Engine) -> None:
    """Nobody can read a job that nobody holds, so it stops."""
    watched = Watched()
    job = engine.submit(watched)
    assert watched.started.wait(10)
    del job
    gc.collect()
    assert watched.closed.wait(10)


def test_a_job_cancelled_before_its_turn_never_runs(engine: Engine) -> None:
    """Nothing of a job is run that was cancelled while it waited for the thread."""
    gate = threading.Event()
    watched = Watched()

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


def test_cancel_ends_a_waiting_consumer(engine: Engine) -> None:
    """A consumer that waits in another thread is let go, without an error, and without the rest of the events."""
    watched = Watched()
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


def test_close_ends_consumers_and_refuses_new_jobs(engine: Engine) -> None:
    """After close a running job's consumer gets EngineClosedError, its generator is closed, the thread has ended."""
    watched = Watched()
    job = iter(engine.submit(watched))
    assert next(job) == 1
    engine.close()
    assert watched.closed.is_set()
    assert watched.thread not in threads()
    with pytest.raises(EngineClosedError, match="while this job was running"):
        list(job)
    with pytest.raises(EngineClosedError, match="has been closed"):
        engine.submit(watched)
    engine.close()


def test_a_job_may_close_its_engine(engine: Engine) -> None:
    """Closing from the inference thread itself does not wait for itself."""

    def steps() -> Generator[int, None, None]:
        yield 1
        engine.close()
        yield 2

    with pytest.raises(EngineClosedError):
        list(engine.submit(steps))


def test_an_engine_that_nobody_holds_ends_its_thread() -> None:
    """A dropped engine frees its backbone and its thread; one with a live job is kept until the job has ended."""

    class Parts:
        """Stand for a backbone; a plain tuple could not be watched."""

    parts = Parts()
    backbone = weakref.ref(parts)
    engine = Engine(cast("Backbone", parts))
    job = engine.submit(lambda: count(3))
    before = threads()
    del engine, parts
    gc.collect()
    assert list(job) == [0, 1, 2]
    del job
    deadline = time.monotonic() + 10
    while backbone() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert backbone() is None
    before[-1].join(10)
    assert not before[-1].is_alive()


def test_a_coroutine_reads_a_job_without_blocking_its_loop(engine: Engine) -> None:
    """Another coroutine runs while one waits for an event, and every event arrives."""
    opened = threading.Event()

    def gated() -> Generator[int, None, None]:
        yield 0
        assert opened.wait(10)
        yield 1

    async def open_gate() -> None:
        opened.set()

    async def main() -> list[int]:
        received = []
        async for event in engine.submit(gated):
            received.append(event)
            if event == 0:
                opening = asyncio.create_task(open_gate())
        await opening
        return received

    assert asyncio.run(main()) == [0, 1]


def test_one_engine_serves_several_event_loops_and_threads(engine: Engine) -> None:
    """Loops one after the other and side by side, and plain threads between them, each get their own events."""

    async def read(number: int) -> list[int]:
        return [event async for event in engine.submit(lambda: count(number))]

    async def several() -> list[list[int]]:
        return list(await asyncio.gather(*(read(number) for number in range(10, 15))))

    results: dict[int, object] = {}
    workers = [threading.Thread(target=lambda n=n: results.update({n: asyncio.run(several())})) for n in range(3)]
    workers += [
        threading.Thread(target=lambda n=n: results.update({n: list(engine.submit(lambda: count(n)))}))
        for n in range(3, 6)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    expected = [list(range(number)) for number in range(10, 15)]
    assert results == {0: expected, 1: expected, 2: expected, 3: [0, 1, 2], 4: [0, 1, 2, 3], 5: [0, 1, 2, 3, 4]}
    assert asyncio.run(several()) == expected


@pytest.mark.parametrize("way", ["cancel", "break"])
def test_an_abandoned_coroutine_cancels_its_job(way: str, engine: Engine) -> None:
    """A cancelled task and a broken-off `async for` both close the generator."""
    watched = Watched()

    async def consume() -> None:
        async for event in engine.submit(watched):
            if way == "break" and event == 2:
                return

    async def main() -> None:
        task = asyncio.create_task(consume())
        assert await asyncio.to_thread(watched.started.wait, 10)
        if way == "cancel":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await task
        assert await asyncio.to_thread(watched.closed.wait, 10)

    asyncio.run(main())


def test_an_error_reaches_a_coroutine(engine: Engine) -> None:
    """What a job raises is raised in the coroutine too, after the events before it."""

    def steps() -> Generator[int, None, None]:
        yield 1
        raise LookupError("broken")

    received: list[int] = []

    async def consume() -> None:
        async for event in engine.submit(steps):
            received.append(event)  # noqa: PERF401 (what came before the error counts)

    with pytest.raises(LookupError, match="broken"):
        asyncio.run(consume())
    assert received == [1]


def test_a_consumer_whose_loop_was_closed_does_not_hurt_the_engine(engine: Engine) -> None:
    """A job that a closed event loop waits for ends, and the next job runs."""
    gate = threading.Event()
    closed = threading.Event()

    def steps() -> Generator[int, None, None]:
        try:
            gate.wait(10)
            yield 1
            yield 2
        finally:
            closed.set()

    job = engine.submit(steps)
    loop = asyncio.new_event_loop()
    events = job.__aiter__()
    waiting = loop.create_task(events.__anext__())
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    gate.set()
    assert closed.wait(10)
    assert list(engine.submit(lambda: count(1))) == [0]
    waiting.cancelled()
    # The loop can no longer run what is left; saying so is asyncio's business, not this test's.
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    waiting.get_coro().close()  # type: ignore[union-attr]


CHILD = """
import time
from backbone.engine import Engine

def busy():
    while True:
        time.sleep(0.005)
        yield 1

engine = Engine(None)
job = engine.submit(busy)
events = iter(job)
next(events)
print("end of main", flush=True)
"""


def test_an_engine_does_not_keep_the_interpreter_alive() -> None:
    """A program ends by itself, and quietly, though its engine has a job that never ends."""
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD], capture_output=True, text=True, timeout=300, check=False
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, "end of main\n", "")


def conversation(model: MemoryModel, seed: int) -> Callable[[], Generator[object, None, None]]:
    """Make a job of three turns: the memory goes from turn to turn; tokens and state bytes come out."""

    def steps() -> Generator[object, None, None]:
        memory = model.empty_memory()
        for turn in range(3):
            ids = tuple(10 + (seed * 31 + turn * 7 + n * n) % 300 for n in range(30 + 5 * seed))
            prompt = TokenPrompt(ids, (True,) * len(ids), (2 * turn,) * len(ids))
            prefilled = yield from prefill(model, prompt, memory, piece=8)
            sampling = Sampling(max_tokens=10, temperature=1.0 * (seed % 2), seed=seed)
            reply = decode(model, prefilled, sampling, eos_ids=(), segment_id=2 * turn + 1)
            finished: Finished = yield from reply
            memory = finished.memory
            yield memory.to_bytes()

    return steps


@pytest.mark.parametrize("kind", ["model", "message_model"])
def test_interleaved_conversations_are_what_each_is_alone(kind: str, request: pytest.FixtureRequest) -> None:
    """Conversations side by side on one engine give the tokens and the bytes of state that each gives by itself."""
    model: MemoryModel = request.getfixturevalue(kind)
    engine = Engine(Backbone(model, None))  # type: ignore[arg-type] (no text here)
    alone = [list(engine.submit(conversation(model, seed))) for seed in range(4)]
    together = [engine.submit(conversation(model, seed)) for seed in range(4)]
    assert [list(job) for job in together] == alone
    assert len({bytes(events[-1]) for events in alone if isinstance(events[-1], bytes)}) == 4
    engine.close()
