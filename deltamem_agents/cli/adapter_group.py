"""Declare `deltamem adapter …`: look into adapters, and convert them."""

from typing import Annotated

import typer

from deltamem_agents.cli.options import AsJson

__all__ = ["adapters"]

adapters = typer.Typer(help="Look into adapters, and convert them.", no_args_is_help=True)

Source = Annotated[str, typer.Argument(help="Folder of the adapter, its hub name, or the name of a bundled one.")]
Target = Annotated[str, typer.Argument(help="Folder to write, which holds no adapter yet.")]
ItsModel = Annotated[str | None, typer.Option("--model", help="Hub name or path of the adapter's backbone.")]
Revision = Annotated[str | None, typer.Option(help="The backbone's version on the hub.")]


@adapters.command(epilog="Example: deltamem adapter inspect msw")
def inspect(path: Source, model: ItsModel = None, revision: Revision = None, as_json: AsJson = False) -> None:
    """Print an adapter's options and size, its share of the backbone's parameters, and how fast its gates forget."""
    from deltamem_agents.cli.adapter import print_description

    print_description(path, model=model, revision=revision, as_json=as_json)


@adapters.command(epilog="Example: deltamem adapter convert msw published-msw")
def convert(source: Source, target: Target, as_json: AsJson = False) -> None:
    """Write an adapter in the other format: this project's, or that of the published code."""
    from deltamem_agents.cli.adapter import convert_to

    convert_to(source, target, as_json=as_json)
