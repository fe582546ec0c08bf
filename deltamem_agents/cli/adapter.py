"""Show what an adapter is, and convert it between formats."""

import dataclasses
import json
import math
from typing import Any

from rich.console import Console
from rich.table import Table

from backbone import AdapterDescription, convert_adapter, count_parameters, describe_adapter, find_adapter

__all__ = ["convert_to", "print_description"]

_FORMATS = {"project": "this project's", "published": "the published code's"}


def print_description(path: str, *, model: str | None, revision: str | None, as_json: bool) -> None:
    """Print options, size and gates of an adapter to stdout, and with a model its share of the model's parameters.

    path: a folder, a hub name, or a bundled adapter's name, whose model is the bundled one.

    Raises:
        AdapterError: there is no adapter, or it cannot be read.
    """
    folder = find_adapter(path)
    description = describe_adapter(folder)
    bundled = folder.parent == find_adapter(None).parent
    backbone = count_parameters(model, revision=revision) if bundled or model is not None else None
    figures = _figures(description, backbone)
    if as_json:
        print(json.dumps(figures))
        return
    console = Console()
    console.print(_summary(path, figures))
    console.print(_layers(figures))


def convert_to(source: str, target: str, *, as_json: bool) -> None:
    """Write an adapter into another folder in the format that it is not in, and say so.

    Raises:
        AdapterError: there is no adapter, it cannot be read, or the folder holds one already.
    """
    written = convert_adapter(find_adapter(source), target)
    text = f"{target} is the adapter in {_FORMATS[written]} format"
    print(json.dumps({"adapter": target, "format": written}) if as_json else text)


def _figures(description: AdapterDescription, backbone: int | None) -> dict[str, Any]:
    """Give what JSON can hold; a half-life of null is endless."""
    return {
        "format": description.format,
        "options": description.config.to_dict(),
        "parameters": description.parameters,
        "backbone_parameters": backbone,
        "share": None if backbone is None else description.parameters / backbone,
        "file_bytes": description.file_bytes,
        "state_bytes": description.state_bytes,
        "layers": [
            {
                **dataclasses.asdict(layer),
                "half_life": [None if math.isinf(writes) else writes for writes in layer.half_life],
            }
            for layer in description.layers
        ],
    }


def _summary(path: str, figures: dict[str, Any]) -> Table:
    table = Table(title=f"{path}, in {_FORMATS[figures['format']]} format")
    table.add_column("what")
    table.add_column("value", justify="right")
    for name, value in figures["options"].items():
        table.add_row(name, ", ".join(map(str, value)) or "all" if isinstance(value, list) else str(value))
    table.add_section()
    table.add_row("parameters", f"{figures['parameters']:,}")
    share = "unknown, give --model" if figures["share"] is None else f"{figures['share']:.3%}"
    table.add_row("share of the backbone's", share)
    table.add_row("files, bytes", f"{figures['file_bytes']:,}")
    table.add_row("state of a conversation, bytes", f"{figures['state_bytes']:,}")
    return table


def _layers(figures: dict[str, Any]) -> Table:
    table = Table(
        title="Gates at their bias",
        caption="half-life: writes after which half is left, for the fastest, the median and the slowest state row",
    )
    table.add_column("layer")
    for column in ("parameters", "write gate", "half-life"):
        table.add_column(column, justify="right")
    for layer in figures["layers"]:
        writes = ["endless" if writes is None else f"{writes:.1f}" for writes in layer["half_life"]]
        half_life = writes[0] if len(set(writes)) == 1 else " / ".join(writes)
        table.add_row(layer["name"], f"{layer['parameters']:,}", f"{layer['write_gate']:.3f}", half_life)
    return table
