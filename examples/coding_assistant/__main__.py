"""Run the assistant of this folder: python -m examples.coding_assistant --workspace FOLDER."""

import typer

from deltamem_agents.cli.agent import coding_command
from deltamem_agents.cli.progress import errors_as_lines

__all__ = ["main"]

main = coding_command(str(__package__))


if __name__ == "__main__":
    with errors_as_lines():
        typer.run(main)
