"""Declare `deltamem bench`: measure this machine, wholly or in part."""

import json
from pathlib import Path
from typing import Annotated

import typer

from deltamem_agents.cli.options import AsJson

__all__ = ["bench"]

Parts = Annotated[
    list[str] | None,
    typer.Argument(help="turns, first-token, overhead, ratios, start, redaction, archive, recall; all if left out."),
]
Quick = Annotated[bool, typer.Option("--quick", help="Measure little: does every part run?")]
Picture = Annotated[
    Path | None,
    typer.Option("--plot", help="Where the picture goes.", show_default="runs/bench.png, if all is measured"),
]


def bench(parts: Parts = None, quick: Quick = False, plot: Picture = None, as_json: AsJson = False) -> None:
    """Measure speed, size and recall on this machine, each against a baseline of the same run; takes many minutes."""
    from rich.console import Console

    from backbone import ConfigError
    from deltamem_agents.evaluation.bench import FULL, QUICK, measure
    from deltamem_agents.evaluation.bench_report import print_report

    if parts and plot is not None and not {"turns", "ratios"} <= set(parts):
        raise ConfigError("the picture shows the parts turns and ratios; measure both, or leave out --plot")
    figures = measure(QUICK if quick else FULL, parts or ())
    picture = plot if parts else plot or Path("runs/bench.png")
    if picture is not None:
        from deltamem_agents.evaluation.bench_plot import save_plot

        picture.parent.mkdir(parents=True, exist_ok=True)
        save_plot(figures, picture)
    if as_json:
        print(json.dumps(figures))
        return
    print_report(figures, Console())
    if picture is not None:
        print(f"picture: {picture}")
