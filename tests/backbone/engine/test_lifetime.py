"""When an engine's thread starts and ends."""

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Generator
from typing import Any, cast

import pytest
import torch

from backbone import Backbone, EngineClosedError
from backbone.engine import Engine

NAME = "backbone-inference"


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def count(to: int) -> Generator[int, None, None]:
    yield from range(to)


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


def test_close_ends_consumers_and_refuses_new_jobs(engine: Engine, watched: Any) -> None:
    """After close a running job's consumer gets EngineClosedError, its generator is closed, the thread has ended."""
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
