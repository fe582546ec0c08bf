"""Turn token ids into text as they come, up to a stop string."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backbone.chat.control import control_ids
from backbone.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["TextStream"]

# A token may end in the middle of a character, which decodes to this.
_INCOMPLETE = "\ufffd"

# After so many tokens without a complete character the ids are noise, and waiting longer only costs time.
_PATIENCE = 256


class TextStream:
    """Decode one reply token by token: what comes out never changes later, and never splits a character.

    Special tokens (end of turn, padding) give no text; tool-call and reasoning tags do. With stop strings, text that
    could be the beginning of one is held back, and the text ends before the first that is completed.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", stop: Sequence[str] = ()) -> None:
        """Take the tokenizer and the stop strings; raises ConfigError for an empty stop string or a bare string."""
        if isinstance(stop, str) or not all(stop):
            raise ConfigError(f"stop must be a list of strings that are not empty, got {stop!r}")
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._silent = control_ids(tokenizer)
        # Decoding starts at the token before the new ones: some decoders treat the first token of a text differently.
        self._ids: list[int] = []
        self._shown = 0
        self._held = ""

    def push(self, token_id: int) -> str:
        """Take the next token and return the text that has become certain; nothing once a stop string was met."""
        if self.stopped or token_id in self._silent:
            return ""
        self._ids.append(token_id)
        return self._release(self._new_text(final=len(self._ids) - self._shown >= _PATIENCE), final=False)

    def finish(self) -> str:
        """Return the text still held back, at the end of the reply."""
        return "" if self.stopped else self._release(self._new_text(final=True), final=True)

    def _new_text(self, *, final: bool) -> str:
        shown = self._decode(self._ids[: self._shown])
        text = self._decode(self._ids)
        if text.endswith(_INCOMPLETE) and not final:
            return ""
        self._ids = self._ids[self._shown :]
        self._shown = len(self._ids)
        return text[len(shown) :]

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)  # noqa: S101 (a list of ids decodes to one text; the annotation allows batches)
        return text

    def _release(self, new: str, *, final: bool) -> str:
        text = self._held + new
        # The stop string that is completed first wins, so that the result does not depend on how the text is cut up.
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)[1]]
        keep = 0 if final else max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of the text that is a beginning of the stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
