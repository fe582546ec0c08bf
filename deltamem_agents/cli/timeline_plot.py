"""Draw a thread's working memory: norms of its states, and what it did with each message."""

from collections.abc import Sequence
from pathlib import Path

from backbone import ConfigError
from deltamem_agents.gates import GateReading
from deltamem_agents.installing import install_extra
from deltamem_agents.timeline import Timeline

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ConfigError(f"the picture needs matplotlib: {install_extra('plot')}") from error

__all__ = ["save_timeline_plot"]


def save_timeline_plot(timeline: Timeline, readings: Sequence[GateReading], path: Path) -> None:
    """Save a picture: each layer's state norm by absorbed tokens, and below gate and surprise by message.

    Raises ConfigError for a file name that matplotlib has no format for.
    """
    figure = Figure(figsize=(9, 6), layout="constrained")
    norms, gates = figure.subplots(2, 1)
    tokens = [0, *(point.tokens for point in timeline.memory)]
    for layer in timeline.memory[-1].norms if timeline.memory else ():
        norms.plot(tokens, [0.0, *(point.norms.get(layer, 0.0) for point in timeline.memory)], marker=".", label=layer)
    norms.set(xlabel="tokens absorbed", ylabel="norm of the state", ylim=(0, None), title=f"thread {timeline.thread}")
    if timeline.memory:
        norms.legend(fontsize="small")
    for name, label in (("write_gate", "write gate β"), ("surprise", "surprise")):
        values = [float("nan") if (v := getattr(reading, name)) is None else v for reading in readings]
        gates.plot(range(1, len(values) + 1), values, marker=".", label=label)
    gates.set(xlabel="message", ylim=(0, None))
    gates.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise ConfigError(f"cannot save a picture as {path.name!r}: {error}") from error
