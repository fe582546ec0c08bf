"""Run the analyst of this folder: python -m examples.data_analyst --csv FILE."""

import typer

from deltamem_agents.cli.agent import data_command
from deltamem_agents.cli.progress import errors_as_lines

__all__ = ["main"]

main = data_command(str(__package__))


if __name__ == "__main__":
    with errors_as_lines():
        typer.run(main)
