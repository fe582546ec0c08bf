"""A job of an engine: events made on the inference thread, taken by a thread or by a coroutine of any event loop."""

import asyncio
import contextvars
import logging
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Generic, TypeVar

__all__ = ["Job", "Steps", "Task"]

T = TypeVar("T")
Steps = Callable[[], Generator[T | None, None, object]]

_log = logging.getLogger(__name__)


class Task(Generic[T]):
    """Carry one job between the inference thread, which runs it, and its consumer, who takes its events."""

    def __init__(self, steps: Steps[T], owner: object) -> None:
        self.steps = steps
        self.owner = owner  # kept alive for as long as the job is live
        self.context = contextvars.Context()  # one job's context variables never reach another job
        self.generator: Generator[T | None, None, object] | None = None
        self.changed = threading.Condition()
        self.events: deque[T] = deque()
        self.finished = False
        self.error: BaseException | None = None
        self.wake: Callable[[], None] | None = None

    def step(self) -> bool:
        """Run the generator up to its next yield; tell whether it has more to do. Called on the inference thread."""
        if self.finished:
            self.close_generator()
            return False
        try:
            if self.generator is None:
                self.generator = self.context.run(self.steps)
            event = self.context.run(next, self.generator)
        except StopIteration:
            self.finish()
            return False
        except BaseException as error:  # whatever a job raises belongs to its consumer; the thread serves the others
            self.finish(error)
            return False
        if event is not None:
            with self.changed:
                self.events.append(event)
                self._notify()
        return True

    def close_generator(self) -> None:
        """Let the generator clean up after itself, on the inference thread."""
        generator, self.generator = self.generator, None
        if generator is not None:
            try:
                self.context.run(generator.close)
            except BaseException:  # nobody is left to be told
                _log.exception("a cancelled job failed while it was being closed")

    def finish(self, error: BaseException | None = None) -> None:
        """End the job for its consumer; the first ending counts."""
        with self.changed:
            if not self.finished:
                self.finished, self.error = True, error
                self._notify()

    def cancel(self) -> None:
        """End the job, and drop what nobody has taken yet: events, and an error, of a job that has already ended."""
        with self.changed:
            self.events.clear()
            self.error = None
        self.finish()

    def _notify(self) -> None:
        self.changed.notify_all()
        if self.wake is not None:
            wake, self.wake = self.wake, None
            try:
                wake()
            except RuntimeError:  # the consumer's event loop is closed: nobody will come back for the rest
                self.finished = True


class Job(Generic[T]):
    """Deliver the events of one submitted job, by `for` or by `async for`, once.

    What the job raises is raised in the consumer, after the events before it. Leaving the loop early, dropping the job,
    or the cancellation of the consuming coroutine cancels the job: its generator is closed at its next step.
    """

    def __init__(self, task: Task[T]) -> None:
        """Wrap a task of an engine; use Engine.submit."""
        self._task = task
        weakref.finalize(self, task.cancel).atexit = False

    def cancel(self) -> None:
        """Stop the job at its next step, from any thread; the consumer's loop ends, without what it has not taken."""
        self._task.cancel()

    def __iter__(self) -> Generator[T, None, None]:
        """Yield events as they come, blocking the calling thread in between."""
        task = self._task
        try:
            while True:
                with task.changed:
                    task.changed.wait_for(lambda: task.events or task.finished)
                    if not task.events:
                        error = task.error
                        break
                    event = task.events.popleft()
                yield event
            if error is not None:
                raise error
        finally:
            task.cancel()

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        """Yield events as they come, without blocking the event loop."""
        task = self._task
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(ready.set)

        try:
            while True:
                with task.changed:
                    event = task.events.popleft() if task.events else None
                    if event is None and task.finished:
                        error = task.error
                        break
                    if event is None:
                        ready.clear()
                        task.wake = wake
                if event is None:
                    await ready.wait()
                else:
                    yield event
            if error is not None:
                raise error
        finally:
            task.cancel()
