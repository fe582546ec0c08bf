"""Run the data analyst in a terminal."""

from pathlib import Path
from typing import Any

from deltamem_agents import ConfigError
from deltamem_agents.cli.options import settings_now
from deltamem_agents.cli.talk import talk, thread_of
from deltamem_agents.cli.terminal import open_model

from .agent import data_agent
from .table import TableError, csv_table, diabetes_table

__all__ = ["run"]


def run(
    csv: Path | None = None,
    *,
    pictures: Path = Path("plots"),
    thread: str | None = None,
    script: Path | None = None,
    as_json: bool = False,
    **chosen: Any,
) -> None:
    """Talk to the analyst until the input or the script ends.

    csv: the table; None is the one that scikit-learn ships. pictures: the folder for plots. chosen: settings by
    their names, such as model or archive_db; what is left out, or None, comes from the environment and the file.
    """
    settings = settings_now(**chosen)
    try:
        table = diabetes_table() if csv is None else csv_table(csv)
    except TableError as error:
        raise ConfigError(str(error)) from error
    chat_model = open_model(settings)
    talk(
        lambda memory, saver: data_agent(chat_model, memory, table, pictures, saver),
        chat_model,
        settings,
        about=f"table: {table.name}, {len(table.frame)} rows; columns: {', '.join(table.frame.columns)}",
        namespace=("data", table.name if csv is None else str(csv.resolve())),
        thread=thread or (f"data-{table.name}" if csv is None else thread_of("data", csv)),
        script=script,
        as_json=as_json,
    )
