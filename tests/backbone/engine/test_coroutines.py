"""Jobs read by coroutines, of one event loop and of several."""

import asyncio
import threading
from collections.abc import Generator
from typing import Any

import pytest

from backbone.engine import Engine


def count(to: int) -> Generator[int, None, None]:
    yield from range(to)


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
def test_an_abandoned_coroutine_cancels_its_job(way: str, engine: Engine, watched: Any) -> None:
    """A cancelled task and a broken-off `async for` both close the generator."""

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
