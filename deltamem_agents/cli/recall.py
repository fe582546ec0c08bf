"""Print the recall measurement as a table or as JSON."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from backbone import ConfigError
from deltamem_agents.cli.options import settings_now
from deltamem_agents.cli.progress import quiet_loading
from deltamem_agents.evaluation.recall import RecallOptions, run_recall

__all__ = ["print_recall"]

_MEANING = {
    "exact_match": "answered right, the fact being in the working memory only",
    "zeroed": "the same questions with the memory set to zero",
    "shuffled": "the same questions with another thread's memory",
    "full_context": "the same questions with the whole history in the prompt",
    "never_told": "answered that it does not know what was never said",
    "chance": "guessing among the values of the attribute",
    "n": "questions asked",
    "archive_only": "with the archive's passages and the memory set to zero",
    "hybrid": "with the working memory and the archive's passages",
    "hybrid_never_told": "answered that it does not know, with both",
    "prompt_contains_fact": "prompts that held the fact as text (must be 0)",
}


def print_recall(
    *,
    mode: str | None,
    model: str | None,
    adapter: str | None,
    revision: str | None,
    device: str | None,
    as_json: bool,
    **measured: Any,
) -> None:
    """Measure recall as RecallOptions has it, and print the figures to stdout.

    mode: a bundled adapter in place of model, adapter and revision; what of these, and of device, is None comes from
    the settings.

    Raises:
        ConfigError: a mode beside a model or an adapter, or more facts than there are attributes.
        AdapterError: the model has no such adapter.
    """
    if mode is None:
        chosen = settings_now(model=model, adapter=adapter, revision=revision, device=device)
        model, adapter, revision, device = chosen.model, chosen.adapter, chosen.revision, chosen.device
    elif model or adapter or revision:
        raise ConfigError(
            "--mode names an adapter of the bundled model; leave it out with --model, --adapter, --revision"
        )
    options = RecallOptions(model=model, adapter=mode or adapter, revision=revision, device=device, **measured)
    quiet_loading()
    figures = run_recall(options)
    if as_json:
        print(json.dumps(figures))
        return
    Console().print(_table(_title(options), figures))


def _title(options: RecallOptions) -> str:
    told = f"{options.facts} facts behind {options.distance} tokens{', with updates' if options.updates else ''}"
    return f"{told}, {options.model or 'bundled model'} with {options.adapter or 'msw'}, seed {options.seed}"


def _table(title: str, figures: Mapping[str, Any]) -> Table:
    table = Table(title=title)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("what it is")
    for name, value in figures.items():
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        table.add_row(name, shown, _MEANING.get(name, ""))
    return table
