"""Declare the commands and options of `deltamem`, and turn expected errors into one line."""

import sqlite3
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from backbone import DeltaMemError
from deltamem_agents.cli.archive import archive

__all__ = ["app", "main"]

app = typer.Typer(
    name="deltamem",
    help="Talk to an agent whose memory outlives its prompt, and measure what it remembers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
evaluation = typer.Typer(help="Measure the memory.", no_args_is_help=True)
app.add_typer(evaluation, name="eval")
adapters = typer.Typer(help="Look into adapters, and convert them.", no_args_is_help=True)
app.add_typer(adapters, name="adapter")
policies = typer.Typer(help="Try policies without writing anything.", no_args_is_help=True)
app.add_typer(policies, name="policy")
app.add_typer(archive, name="archive")


@app.callback()
def _root() -> None:
    """Keep `deltamem` a group of commands."""


DEFAULT_DB = "sqlite:///deltamem.sqlite"

Thread = Annotated[str, typer.Option(help="Name of the conversation; an existing one is resumed.")]
Model = Annotated[str | None, typer.Option(help="Hub name or path of a backbone; the bundled one if left out.")]
Adapter = Annotated[str | None, typer.Option(help="Path or hub name of the backbone's memory adapter.")]
Database = Annotated[
    str | None,
    typer.Option(help="Where threads are kept: sqlite:///file, postgresql://… or memory://.", show_default=DEFAULT_DB),
]


@app.command()
def chat(
    thread: Thread = "default",
    model: Model = None,
    adapter: Adapter = None,
    db: Database = None,
) -> None:
    """Talk to an agent; Ctrl-C stops a reply, Ctrl-D ends the program.

    Options that are left out are taken from DELTAMEM_MODEL, DELTAMEM_ADAPTER and DELTAMEM_DB.
    """
    from deltamem_agents.cli.chat import run_chat

    run_chat(thread=thread, model=model, adapter=adapter, db=db)


Facts = Annotated[int, typer.Option(min=1, help="Facts told in each conversation.")]
Distance = Annotated[int, typer.Option(min=0, help="Tokens of unrelated work between facts and question.")]
Updates = Annotated[bool, typer.Option("--updates", help="Change some facts before asking; the newest value counts.")]
Mode = Annotated[Literal["tsw", "ssw", "msw"], typer.Option(help="Which bundled adapter to measure.")]
Threads = Annotated[int, typer.Option(min=2, help="Conversations to measure.")]
Seed = Annotated[int, typer.Option(help="Seed of the generated conversations.")]
WithArchive = Annotated[bool, typer.Option("--archive", help="Ask with an archive of each conversation as well.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


@evaluation.command()
def recall(
    facts: Facts = 4,
    distance: Distance = 500,
    updates: Updates = False,
    mode: Mode = "msw",
    threads: Threads = 24,
    seed: Seed = 0,
    archive: WithArchive = False,
    as_json: AsJson = False,
) -> None:
    """Measure how often a fact is recalled once it has left the prompt, beside the controls."""
    from deltamem_agents.cli.recall import print_recall

    print_recall(
        facts=facts,
        distance=distance,
        updates=updates,
        mode=mode,
        threads=threads,
        seed=seed,
        archive=archive,
        as_json=as_json,
    )


Source = Annotated[str, typer.Argument(help="Folder of the adapter, its hub name, or the name of a bundled one.")]
Target = Annotated[str, typer.Argument(help="Folder to write, which holds no adapter yet.")]
ItsModel = Annotated[str | None, typer.Option("--model", help="Hub name or path of the adapter's backbone.")]
Revision = Annotated[str | None, typer.Option(help="The backbone's version on the hub.")]


@adapters.command()
def inspect(path: Source, model: ItsModel = None, revision: Revision = None, as_json: AsJson = False) -> None:
    """Print an adapter's options and size, its share of the backbone's parameters, and how fast its gates forget."""
    from deltamem_agents.cli.adapter import print_description

    print_description(path, model=model, revision=revision, as_json=as_json)


@adapters.command()
def convert(source: Source, target: Target) -> None:
    """Write an adapter in the other format: this project's, or that of the published code."""
    from deltamem_agents.cli.adapter import convert_to

    convert_to(source, target)


MessageSource = Annotated[str, typer.Option(help="Who says it: user, agent, system, tool:<name>, web or import.")]
PolicyPath = Annotated[
    Path | None, typer.Option("--policy", help="Policy file, TOML or YAML.", show_default="built in")
]


@policies.command()
def explain(
    message: Annotated[str, typer.Argument(help="Text of the message.")],
    source: MessageSource = "user",
    policy: PolicyPath = None,
    as_json: AsJson = False,
) -> None:
    """Show what each policy decides about a message, and the strictest of it."""
    from deltamem_agents.cli.policy import explain as run

    run(message, source=source, policy=policy, as_json=as_json)


@policies.command("test")
def try_policy(
    file: Annotated[Path, typer.Argument(help="Policy file with examples.")],
    policy: PolicyPath = None,
    as_json: AsJson = False,
) -> None:
    """Compare the decisions about a file's examples with what it expects; status 1 if one differs."""
    from deltamem_agents.cli.policy import try_examples

    try_examples(file, policy=policy, as_json=as_json)


Dataset = Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Path of locomo10.json.")]
Embedding = Annotated[
    str | None,
    typer.Option(help="Embeddings as provider:model.", show_default="all-MiniLM-L6-v2 from the extra minilm"),
]


@evaluation.command()
def retrieval(dataset: Dataset, embeddings: Embedding = None, as_json: AsJson = False) -> None:
    """Measure how often the archive finds the turns that answer a question, beside plainer searches."""
    from deltamem_agents.cli.retrieval import print_retrieval

    print_retrieval(dataset=dataset, embeddings=embeddings, as_json=as_json)


def main() -> None:
    """Run the command line; an expected error becomes one line on stderr and exit status 1."""
    try:
        app()
    except (DeltaMemError, OSError, sqlite3.Error) as error:
        typer.secho(error_line(error), err=True, fg=typer.colors.RED)
        sys.exit(1)


def error_line(error: Exception) -> str:
    """Return the message of `error` as a single line."""
    return f"error: {' '.join(str(error).split())}"
