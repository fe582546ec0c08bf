"""Run the data analyst in a terminal."""

from pathlib import Path

from deltamem_agents import ConfigError
from deltamem_agents.cli.talk import open_model, talk

from .agent import data_agent
from .table import TableError, csv_table, diabetes_table

__all__ = ["run"]


def run(
    csv: Path | None = None,
    *,
    pictures: Path = Path("plots"),
    thread: str | None = None,
    model: str | None = None,
    adapter: str | None = None,
    db: str | None = None,
    script: Path | None = None,
) -> None:
    """Talk to the analyst until the input or the script ends.

    csv: the table; None is the one that scikit-learn ships. pictures: the folder for plots.
    """
    try:
        table = diabetes_table() if csv is None else csv_table(csv)
    except TableError as error:
        raise ConfigError(str(error)) from error
    chat_model = open_model(model, adapter)
    print(f"table: {table.name}, {len(table.frame)} rows; columns: {', '.join(table.frame.columns)}")
    talk(
        lambda memory, saver: data_agent(chat_model, memory, table, pictures, saver),
        chat_model,
        namespace=("data", table.name if csv is None else str(csv.resolve())),
        thread=thread or f"data-{table.name}",
        db=db,
        script=script,
    )
