"""Declare `deltamem eval …`: what is remembered, and how well the archive finds."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from deltamem_agents.cli.options import Adapter, AsJson, Device, Model, Revision

__all__ = ["evaluation"]

evaluation = typer.Typer(help="Measure the memory.", no_args_is_help=True)

Facts = Annotated[int, typer.Option(min=1, help="Facts told in each conversation.")]
Distance = Annotated[int, typer.Option(min=0, help="Tokens of unrelated work between facts and question.")]
Updates = Annotated[bool, typer.Option("--updates", help="Change some facts before asking; the newest value counts.")]
Mode = Annotated[
    Literal["tsw", "ssw", "msw"] | None,
    typer.Option(help="Adapter of the bundled model, in place of --model and --adapter.", show_default="msw"),
]
Threads = Annotated[int, typer.Option(min=2, help="Conversations to measure.")]
Seed = Annotated[int, typer.Option(help="Seed of the generated conversations.")]
WithArchive = Annotated[bool, typer.Option("--archive", help="Ask with an archive of each conversation as well.")]


@evaluation.command(epilog="Example: deltamem eval recall --facts 4 --distance 500")
def recall(
    facts: Facts = 4,
    distance: Distance = 500,
    updates: Updates = False,
    mode: Mode = None,
    model: Model = None,
    adapter: Adapter = None,
    revision: Revision = None,
    device: Device = None,
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
        model=model,
        adapter=adapter,
        revision=revision,
        device=device,
        threads=threads,
        seed=seed,
        archive=archive,
        as_json=as_json,
    )


Dataset = Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Path of locomo10.json.")]
Embedding = Annotated[
    str | None,
    typer.Option(help="Embeddings as provider:model.", show_default="all-MiniLM-L6-v2 from the extra minilm"),
]


@evaluation.command(epilog="Example: deltamem eval retrieval --dataset locomo10.json")
def retrieval(dataset: Dataset, embeddings: Embedding = None, as_json: AsJson = False) -> None:
    """Measure how often the archive finds the turns that answer a question, beside plainer searches."""
    from deltamem_agents.cli.retrieval import print_retrieval

    print_retrieval(dataset=dataset, embeddings=embeddings, as_json=as_json)
