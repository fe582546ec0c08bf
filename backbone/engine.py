"""One inference thread per loaded model, fair between its jobs.

A job is a generator; the thread takes one step of each live job in turn. What a job yields travels to its consumer, who
may be a plain thread or a coroutine of any event loop. Nothing here belongs to an event loop, and nothing is global
but the default registry.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import torch

from backbone.errors import EngineClosedError
from backbone.jobs import Job, Steps, Task
from backbone.loading import Backbone, load_backbone
from backbone.prefix_cache import PrefixCache

__all__ = ["Engine", "EngineRegistry", "Job", "default_registry", "shared_engine"]

T = TypeVar("T")

_STOP_SECONDS = 30.0


class _Worker:
    """Run tasks in turn on one daemon thread, started by the first of them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.tasks: deque[Task[Any]] = deque()
        self.thread: threading.Thread | None = None
        self.closed = False

    def add(self, task: Task[Any]) -> None:
        with self.changed:
            if self.closed:
                raise EngineClosedError("this engine has been closed; ask for another one before submitting a job")
            self.tasks.append(task)
            if self.thread is None:
                self.thread = threading.Thread(target=self.run, name="backbone-inference", daemon=True)
                self.thread.start()
            self.changed.notify_all()

    def run(self) -> None:
        with torch.no_grad():  # for this thread, which runs nothing but jobs
            while (task := self.take()) is not None:
                if task.step():
                    with self.changed:
                        self.tasks.append(task)
                del task  # an idle thread must not keep the last job, and through it the engine, alive
        for left in self.tasks:
            left.finish(EngineClosedError("the engine was closed while this job was running"))
            left.close_generator()
        self.tasks.clear()

    def take(self) -> Task[Any] | None:
        with self.changed:
            self.changed.wait_for(lambda: self.tasks or self.closed)
            return None if self.closed else self.tasks.popleft()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(_STOP_SECONDS)


class Engine:
    """Own a loaded backbone and the one thread that runs it.

    Each step of a job's generator is one bounded piece of work (a token, a piece of a prompt); live jobs take turns,
    step by step. The thread starts with the first job, does not keep the interpreter alive, and ends when the engine is
    closed or no longer used.
    """

    def __init__(self, backbone: Backbone) -> None:
        """Take a backbone; no thread is started yet."""
        self.backbone = backbone
        self._prefix_caches: dict[int, PrefixCache] = {}
        self._worker = _Worker()
        # Also runs at exit, so that the interpreter does not end in the middle of a step.
        weakref.finalize(self, self._worker.close)

    def submit(self, steps: Steps[T]) -> Job[T]:
        """Queue a job: `steps` makes its generator on the inference thread; what it yields, except None, is delivered.

        Raises EngineClosedError after close().
        """
        task = Task(steps, self)
        self._worker.add(task)
        return Job(task)

    def prefix_cache(self, max_bytes: int) -> PrefixCache | None:
        """Return the cache of this size, for jobs to pass to prefill; 0 is None, which caches nothing.

        There is one of each size that was ever asked for, and they count apart. Raises ConfigError for a size below 0.
        """
        if max_bytes == 0:
            return None
        return self._prefix_caches.setdefault(max_bytes, PrefixCache(max_bytes))

    def clear_prefix_caches(self) -> int:
        """Drop what was cached, between two steps of the thread; return how many pages there were.

        Raises EngineClosedError after close().
        """
        caches = list(self._prefix_caches.values())

        def steps() -> Generator[int, None, None]:
            count = sum(map(len, caches))
            for cache in caches:
                cache.clear()
            yield count

        return sum(self.submit(steps)) if any(map(len, caches)) else 0

    def close(self) -> None:
        """Stop the thread after its present step, and drop what was cached; unfinished jobs get EngineClosedError.

        May be called again, and from a job.
        """
        self._worker.close()
        self._prefix_caches.clear()


class EngineRegistry:
    """Share loaded engines by (model, adapter, revision, device, dtype).

    load is called with the arguments of get.
    """

    def __init__(self, load: Callable[..., Backbone] = load_backbone) -> None:
        """Start with nothing loaded."""
        self._load = load
        self._lock = threading.Lock()
        self._engines: dict[tuple[str | None, ...], Future[Engine]] = {}

    def get(
        self,
        model: str | Path | None = None,
        *,
        adapter: str | Path | None = None,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Engine:
        """Return the engine of these arguments, loading it the first time; threads that ask at once wait for one load.

        A load that fails raises in everybody who waited for it, and is tried again by whoever asks next.
        """
        options = {"adapter": adapter, "revision": revision, "device": device, "dtype": dtype}
        key = tuple(None if value is None else str(value) for value in (model, *options.values()))
        with self._lock:
            known = self._engines.get(key)
            if known is None:
                mine = self._engines[key] = Future()
        if known is not None:
            return known.result()
        try:
            mine.set_result(Engine(self._load(model, **options)))
        except BaseException as error:
            with self._lock:
                self._engines.pop(key, None)
            mine.set_exception(error)
        return mine.result()

    def clear_prefix_caches(self) -> int:
        """Drop what the loaded engines have cached; return how many pages there were."""
        with self._lock:
            loaded = [engine for engine in self._engines.values() if engine.done() and engine.exception() is None]
        return sum(engine.result().clear_prefix_caches() for engine in loaded)

    def close(self) -> None:
        """Close every engine and forget it; asking again loads afresh."""
        with self._lock:
            engines, self._engines = list(self._engines.values()), {}
        for engine in engines:
            if engine.exception() is None:
                engine.result().close()


_DEFAULT = EngineRegistry()


def default_registry() -> EngineRegistry:
    """Return the registry that is used where none is given: one a process, empty until somebody asks it, closable."""
    return _DEFAULT


def shared_engine(model: str | Path | None = None, **options: Any) -> Engine:
    """Return an engine of the default registry; arguments as EngineRegistry.get."""
    return default_registry().get(model, **options)
