"""The `deltamem` command; a command imports what it needs when it runs, so that `--help` answers at once."""

from deltamem_agents.cli.app import app, main

__all__ = ["app", "main"]
