"""Talk to a person in a terminal: load the model that they chose, take their lines, and write notes beside replies."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from deltamem_agents.cli.escaping import printable
from deltamem_agents.cli.options import chat_model
from deltamem_agents.cli.progress import quiet_loading, working

if TYPE_CHECKING:
    from deltamem_agents.chat_models import ChatDeltaMem
    from deltamem_agents.settings import Settings

__all__ = ["note", "open_model", "typed"]

_BUNDLED_REPLY_TOKENS = 64
_KEYS = "Ctrl-C stops a reply; Ctrl-D ends the program."


def open_model(settings: "Settings") -> "ChatDeltaMem":
    """Return the chat model that the settings name, loaded; raises DeltaMemError if it cannot be."""
    with working("loading the model"):
        if settings.model is None:
            quiet_loading()
        chosen = chat_model(settings, **({"max_tokens": _BUNDLED_REPLY_TOKENS} if settings.model is None else {}))
        _ = chosen.engine
    return chosen


def typed() -> Iterator[str]:
    """Yield what a person types after a prompt, or what comes through a pipe without one, until it ends."""
    person = sys.stdin.isatty()
    if person:
        note(_KEYS)
    while True:
        try:
            yield input("you> " if person else "").strip()
        except KeyboardInterrupt:
            note(f"\n{_KEYS}")
        except EOFError:
            if person:
                print()
            return


def note(text: str) -> None:
    """Print what is not part of the conversation, its controls escaped: dim in a terminal, and plain in a pipe."""
    text = printable(text)
    console = Console()
    if console.is_terminal:
        console.print(Text(text, style="dim"), soft_wrap=True)
    else:
        print(text)  # rich would turn tabs into spaces
