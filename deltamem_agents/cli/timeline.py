"""Declare `deltamem thread show`: what happened in a thread, and what became of its memory."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltamem_agents.cli.escaping import printable
from deltamem_agents.cli.options import (
    Adapter,
    AsJson,
    Database,
    Device,
    Model,
    archive_url,
    chat_model,
    labels,
    settings_now,
    threads_url,
)
from deltamem_agents.cli.progress import working

if TYPE_CHECKING:
    from rich.console import Console

    from deltamem_agents.gates import GateReading
    from deltamem_agents.settings import Settings
    from deltamem_agents.timeline import Event, Timeline

__all__ = ["SHOW_EXAMPLE", "show", "thread"]

SHOW_EXAMPLE = "Example: deltamem thread show notes --namespace acme --plot notes.png"
_BARS = "▁▂▃▄▅▆▇█"
_NARROWEST_PLOT = 10  # characters
_STYLES = {"said": "", "absorbed": "magenta", "archived": "cyan", "recalled": "green", "decided": "yellow"}

thread = typer.Typer(help="Look into one thread.", no_args_is_help=True)

ThreadId = Annotated[str, typer.Argument(help="Name of the thread.", metavar="ID")]
Space = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", help="Namespace of its archive; without one, what was archived and decided is left out."
    ),
]
ArchiveDatabase = Annotated[
    str | None,
    typer.Option(help="The archive.", show_default="DELTAMEM_ARCHIVE_DB, or sqlite:///archive.sqlite"),
]
Gates = Annotated[bool, typer.Option(help="Read the thread once more, and show what the memory did with each message.")]
Plot = Annotated[Path | None, typer.Option(help="Picture to save, such as thread.png.")]


@thread.command(epilog=SHOW_EXAMPLE)
def show(
    name: ThreadId,
    namespace: Space = None,
    db: Database = None,
    archive_db: ArchiveDatabase = None,
    gates: Gates = True,
    model: Model = None,
    adapter: Adapter = None,
    device: Device = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Show what was said, absorbed, archived, recalled and decided in a thread, and its memory as a plot."""
    with working("reading the thread"):
        settings = settings_now(model=model, adapter=adapter, device=device, db=db, archive_db=archive_db)
        timeline = _read(name, settings)
        archived = [] if namespace is None else _archived(name, settings, namespace)
        readings = _gates(timeline, settings) if gates else []
    events = sorted((*timeline.events, *archived), key=lambda event: event.time)
    if plot is not None:
        from deltamem_agents.cli.timeline_plot import save_timeline_plot

        save_timeline_plot(timeline, readings, plot)
    if as_json:
        print(json.dumps(_as_json(timeline, events, readings), ensure_ascii=False))
        return
    _print_events(timeline, events)
    _print_memory(timeline, readings)


def _read(name: str, settings: "Settings") -> "Timeline":
    from deltamem_agents.checkpoint import open_checkpointer
    from deltamem_agents.timeline import thread_timeline

    key = None if settings.aes_key is None else settings.aes_key.get_secret_value()
    with open_checkpointer(threads_url(settings.db), aes_key=key) as saver:
        return thread_timeline(saver, name)


def _archived(name: str, settings: "Settings", namespace: str) -> "list[Event]":
    from deltamem_agents.archive.store import MemoryStore
    from deltamem_agents.timeline import archived_events, decided_events

    with MemoryStore.from_url(archive_url(settings.archive_db, flag="--archive-db")) as store:
        space = labels(namespace)
        return [*archived_events(store, space, name), *decided_events(store, space, name)]


def _gates(timeline: "Timeline", settings: "Settings") -> "list[GateReading]":
    """Measure the thread's messages, if the settings' model is the one whose memory it has."""
    from deltamem_agents.cli.progress import quiet_loading
    from deltamem_agents.gates import read_gates

    if timeline.fingerprint is None:
        return []
    quiet_loading()
    backbone = chat_model(settings).engine.backbone
    if backbone.model.fingerprint != timeline.fingerprint:
        return []
    return list(read_gates(backbone, timeline.messages))


def _as_json(timeline: "Timeline", events: "Sequence[Event]", readings: "Sequence[GateReading]") -> dict[str, Any]:
    from dataclasses import asdict

    def plain(value: Any) -> dict[str, Any]:
        fields = asdict(value)
        return {**fields, "time": value.time.isoformat()} if "time" in fields else fields

    return {
        "thread": timeline.thread,
        "checkpoints": timeline.checkpoints,
        "fingerprint": timeline.fingerprint,
        "events": [plain(event) for event in events],
        "memory": [plain(point) for point in timeline.memory],
        "gates": [plain(reading) for reading in readings],
    }


def _print_events(timeline: "Timeline", events: "Sequence[Event]") -> None:
    """Print one line an event; a terminal gets what fits into its width, a pipe gets all."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    counted = f"{len(timeline.messages)} messages, {timeline.checkpoints} checkpoints"
    console.print(Text(f"thread {printable(timeline.thread)}: {counted}"))
    for event in events:
        at = event.time.strftime("%Y-%m-%d %H:%M:%S")
        who, said = printable(event.who), printable(" ".join(event.text.split()))
        line = Text.assemble(at, " ", (f"{event.kind:<9}", _STYLES[event.kind]), f" {who:<12} {said}")
        if console.is_terminal:
            line.truncate(console.width, overflow="ellipsis")
        console.print(line, soft_wrap=True)


def _print_memory(timeline: "Timeline", readings: "Sequence[GateReading]") -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not timeline.memory:
        console.print("working memory: nothing has left the window yet")
        return
    norms = [sum(point.norms.values()) / len(point.norms) for point in timeline.memory]
    _print_plot(console, "state norm", norms, f"{norms[-1]:.2f} after {timeline.memory[-1].tokens:,} tokens")
    if not readings:
        missing = "gates: not measured; they need the thread's own --model and --adapter, and no --no-gates"
        console.print(missing, soft_wrap=True)
        return
    for name, label, top in (("write_gate", "write gate", 1.0), ("surprise", "surprise", None)):
        values = [getattr(reading, name) for reading in readings]
        known = [value for value in values if value is not None]
        span = f"{min(known):.2f} to {max(known):.2f}" if known else "none"
        _print_plot(console, label, values, f"{span}, message by message", top)


def _print_plot(
    console: "Console", label: str, values: Sequence[float | None], told: str, top: float | None = None
) -> None:
    room = max(console.width - len(f"{label:<11}   {told}"), _NARROWEST_PLOT)
    console.print(f"{label:<11} {sparkline(values, top, width=room)}  {told}", soft_wrap=True)


def sparkline(values: Sequence[float | None], top: float | None = None, *, width: int | None = None) -> str:
    """Return a bar a value, from 0 to top (None: the greatest value); a space where there is none.

    width: characters at most; where values are more, a bar is the greatest of its neighbours, so that no peak is lost.
    """
    if width is not None and len(values) > width:
        edges = [len(values) * step // width for step in range(width + 1)]
        parts = [values[start:end] for start, end in pairwise(edges)]
        values = [max((value for value in part if value is not None), default=None) for part in parts]
    highest = top or max((value for value in values if value is not None), default=0.0) or 1.0
    shares = [None if value is None else min(max(value / highest, 0.0), 1.0) for value in values]
    return "".join(" " if share is None else _BARS[round(share * (len(_BARS) - 1))] for share in shares)
