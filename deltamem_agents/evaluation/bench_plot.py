"""Draw the figures of `bench`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbone import ConfigError
from deltamem_agents.installing import install_extra

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ConfigError(f"the picture needs matplotlib: {install_extra('plot')}") from error

__all__ = ["save_plot"]


def save_plot(figures: Mapping[str, Any], path: Path) -> None:
    """Draw seconds per turn, bytes on disk and what the memory costs, and save them as a PNG."""
    figure = Figure(figsize=(16, 4), layout="constrained")
    turns, sizes, ratios = figure.subplots(1, 3)
    seconds = figures["seconds_of_each_turn"]
    turns.plot(range(1, len(seconds) + 1), seconds, label="with memory")
    compared = figures["turns"]
    turns.plot([t["turn"] for t in compared], [t["full_seconds"] for t in compared], "o--", label="full history")
    turns.set(xlabel="turn", ylabel="seconds", ylim=(0, None), title="Seconds per turn")
    turns.legend()
    files = {name: size for name, size in figures["file_bytes"].items() if name != "turns"}
    sizes.barh(list(files), [size / 1e6 for size in files.values()])
    sizes.set(xlabel="MB", title=f"SQLite file after {figures['file_bytes']['turns']} turns")
    names = list(figures["ratios"])[::-1]
    bars = ratios.barh(names, [figures["ratios"][name] for name in names])
    ratios.bar_label(bars, fmt="%.3f")
    ratios.axvline(1.0, color="black", linewidth=0.8)
    ratios.set(xlabel="with memory ÷ frozen backbone", title="bench-512")
    figure.savefig(path, dpi=120)
