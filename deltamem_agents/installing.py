"""Say how to install what is missing; the project is on no package index, so that takes its clone."""

__all__ = ["INSTALL", "install_extra"]

INSTALL = "run pip install . in the clone of deltamem-agents"
"""What a person has to do to install the project, as a sentence."""


def install_extra(extra: str) -> str:
    """Return what a person has to do to get an extra, as the end of a sentence."""
    return f'run pip install ".[{extra}]" in the clone of deltamem-agents'
