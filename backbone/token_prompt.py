"""Hold a prompt as the memory sees it: tokens, which of them are written, and where it is read in pieces."""

import itertools
from dataclasses import dataclass

from backbone.errors import ConfigError

__all__ = ["TokenPrompt"]


@dataclass(frozen=True)
class TokenPrompt:
    """Hold a prompt: ids, whether each token is written to the memory, and (SSW) the segment of each token.

    segment_ids matter only to adapters that write messages or sentences, and these need them; -1 marks a token that is
    not written.
    cuts: counts of tokens, increasing, at which a piece ends whatever its size, because another prompt may go on there.
    decays: pairs of a count of tokens, 0 or a cut, and the factor (0 to 1) that the memory is scaled by before the
    token there is read.
    """

    ids: tuple[int, ...]
    write_mask: tuple[bool, ...]
    segment_ids: tuple[int, ...] | None = None
    cuts: tuple[int, ...] = ()
    decays: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse an empty prompt, parts of different lengths, cuts out of order or outside, and decays at no cut."""
        count = len(self.ids)
        if count == 0:
            raise ConfigError("the prompt has no tokens; give at least one")
        if len(self.write_mask) != count:
            raise ConfigError(f"write_mask must have one entry a token, {count}, got {len(self.write_mask)}")
        if self.segment_ids is not None and len(self.segment_ids) != count:
            raise ConfigError(f"segment_ids must have one entry a token, {count}, got {len(self.segment_ids)}")
        if any(left >= right for left, right in itertools.pairwise((0, *self.cuts, count))):
            raise ConfigError(f"cuts must increase and lie inside the prompt, from 1 to {count - 1}, got {self.cuts}")
        places = [place for place, _ in self.decays]
        if not {0, *self.cuts}.issuperset(places) or not all(0 <= factor <= 1 for _, factor in self.decays):
            raise ConfigError(f"decays are factors from 0 to 1 at 0 or at a cut ({self.cuts}), got {self.decays}")

    def piece(self, start: int, end: int) -> "TokenPrompt":
        """Return the tokens from start up to, not including, end, as a prompt without cuts and decays."""
        segments = None if self.segment_ids is None else self.segment_ids[start:end]
        return TokenPrompt(self.ids[start:end], self.write_mask[start:end], segments)

    def piece_ends(self, limit: int) -> tuple[int, ...]:
        """Return where its pieces end: at each cut, every `limit` tokens after one, and at the prompt's end.

        What comes before a cut has no say in the pieces after it, so prompts that share tokens and cuts share pieces.
        """
        ends: list[int] = []
        for begin, cut in itertools.pairwise((0, *self.cuts, len(self.ids))):
            ends.extend(range(begin + limit, cut, limit))
            ends.append(cut)
        return tuple(ends)
