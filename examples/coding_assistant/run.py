"""Run the coding assistant in a terminal."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deltamem_agents.cli.options import settings_now
from deltamem_agents.cli.talk import own_files, talk, thread_of
from deltamem_agents.cli.terminal import open_model

from .agent import coding_agent
from .workspace import DEFAULT_COMMANDS, Limits, Workspace

__all__ = ["run", "sample_copy"]


def run(
    workspace: Path | None = None,
    *,
    allow: Sequence[str] = (),
    thread: str | None = None,
    script: Path | None = None,
    as_json: bool = False,
    **chosen: Any,
) -> None:
    """Talk to the assistant until the input or the script ends.

    workspace: the folder to work in; None is a copy of the sample project in the current folder. allow: command lines
    that may run beside the default ones. chosen: settings by their names, such as model or archive_db; what is left
    out, or None, comes from the environment and the settings file.
    """
    settings = settings_now(**chosen)
    chat_model = open_model(settings)
    # A result with as many characters as the window has tokens fills a quarter to a half of it.
    limits = Limits(result_characters=chat_model.window[0], shown_lines=3 if chat_model.model is None else None)
    space = Workspace(workspace or sample_copy(), (*DEFAULT_COMMANDS, *allow), limits, private=own_files(settings))
    talk(
        lambda memory, saver: coding_agent(chat_model, memory, space, saver),
        chat_model,
        settings,
        about=f"workspace: {space.root}",
        namespace=("coding", str(space.root)),
        thread=thread or thread_of("coding", space.root),
        script=script,
        as_json=as_json,
    )


def sample_copy() -> Path:
    """Copy the sample project into the current folder, unless a copy is there."""
    # A name of its own: a folder "sample_project" may be the original, which tests take as it is.
    copy = Path("sample_project_copy")
    if not copy.exists():
        source = Path(__file__).parent / "sample_project"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy
