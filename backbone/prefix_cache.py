"""Keep what reading a prompt left behind, so that a prompt that begins the same is read from where it differs.

A page is one piece of a prompt: the keys and values of its tokens, and the memory after it. A piece is found again only
behind the same pieces, read from the same state. Passes over equal pieces are equal passes, so a warm prompt
is bit for bit the cold one.
"""

import hashlib
import itertools
import logging
import struct
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from backbone.adapter.state import MemoryState
from backbone.errors import ConfigError
from backbone.token_prompt import TokenPrompt

__all__ = ["Page", "PrefixCache", "prefix_keys", "resume"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Page:
    """Hold one piece: its number of tokens, keys and values [1, H, T, d] of each layer, and the memory after it.

    A sliding layer has only what its window left of the piece. Nothing changes a page: what goes on from it copies.
    """

    tokens: int
    layers: tuple[tuple[Tensor, Tensor], ...]
    memory: MemoryState

    @cached_property
    def size(self) -> int:
        """Give its bytes."""
        return sum(tensor.nbytes for tensor in itertools.chain(*self.layers, _tensors(self.memory)))


class PrefixCache:
    """Keep pages up to a number of bytes; what was used least recently goes first.

    Not locked: all calls come from the one thread that runs the model. A page counts as used after the pages that go on
    from it, so none of them outlives its beginning. Raises ConfigError for max_bytes below 1.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 1:
            raise ConfigError(f"a prefix cache needs max_bytes of at least 1, got {max_bytes}")
        self.max_bytes = max_bytes
        self.size = 0
        self._pages: OrderedDict[bytes, Page] = OrderedDict()
        self._refused = False

    def __len__(self) -> int:
        """Count the pages."""
        return len(self._pages)

    def clear(self) -> None:
        """Drop every page."""
        self._pages.clear()
        self.size = 0

    def find(self, keys: Sequence[bytes]) -> list[Page]:
        """Return the pages of the longest known beginning of these keys, and count them as used."""
        known = list(itertools.takewhile(self._pages.__contains__, keys))
        self._touch(known)
        return [self._pages[key] for key in known]

    def store(self, keys: Sequence[bytes], past: Cache, tokens: int, memory: MemoryState) -> None:
        """Keep a copy of the newest `tokens` of a key-value cache, and the memory after them, under the last key.

        keys: those of all pieces up to this one. Nothing is kept if the pieces before are not here, if all of them
        together have more than max_bytes, or if the model's cache is of a kind that cannot be cut (logged once).
        """
        if any(key not in self._pages for key in keys[:-1]):
            return
        if keys[-1] not in self._pages:
            page = self._cut(past, tokens, memory)
            if page is None or page.size + sum(self._pages[key].size for key in keys[:-1]) > self.max_bytes:
                return
            self._pages[keys[-1]] = page
            self.size += page.size
        self._touch(keys)
        while self.size > self.max_bytes:
            self.size -= self._pages.popitem(last=False)[1].size

    def _touch(self, keys: Sequence[bytes]) -> None:
        """Make these pages the youngest, the first piece the very youngest."""
        for key in reversed(keys):
            self._pages.move_to_end(key)

    def _cut(self, past: Cache, tokens: int, memory: MemoryState) -> Page | None:
        parts = [_newest(layer, tokens) for layer in past.layers]
        odd = {type(layer).__name__ for layer, part in zip(past.layers, parts, strict=True) if part is None}
        if odd and not self._refused:
            self._refused = True
            _log.warning(
                "the prefix cache stays empty: this model keeps %s, which cannot be cut", ", ".join(sorted(odd))
            )
        return None if odd else Page(tokens, tuple(part for part in parts if part is not None), memory)


def prefix_keys(prompt: TokenPrompt, ends: Sequence[int], memory: MemoryState, *, by_message: bool) -> list[bytes]:
    """Return a key for each piece of a prompt, made of the state it is read from and every token up to its end.

    A token counts with its id and whether it is written; if writes are by message also with whether it begins one. The
    numbers of messages do not count. A piece counts with the factor that the memory is scaled by before it.
    """
    key = _state_digest(memory)
    segments = prompt.segment_ids if by_message else None
    opened = -1 if memory.open_segment is None else int(memory.open_segment.ids[0])
    if segments is None:
        marks = array("q", (i << 2 | written << 1 for i, written in zip(prompt.ids, prompt.write_mask, strict=True)))
    else:
        tokens = zip(prompt.ids, prompt.write_mask, segments, (opened, *segments), strict=False)
        marks = array("q", (i << 2 | (written and s >= 0) << 1 | (s != last) for i, written, s, last in tokens))
    factors = dict(prompt.decays)
    keys = []
    for begin, end in itertools.pairwise((0, *ends)):
        key += struct.pack("<d", factors[begin]) if begin in factors else b""
        key = hashlib.sha256(key + marks[begin:end].tobytes()).digest()
        keys.append(key)
    return keys


def resume(config: PretrainedConfig, pages: Sequence[Page], segment_id: int) -> tuple[Cache, MemoryState]:
    """Return the key-value cache and the memory after these pages, which stay as they are.

    config: the model's. segment_id: the message that the last token belongs to in the prompt that goes on.
    """
    past = DynamicCache(config=config)
    total = sum(page.tokens for page in pages)
    for index in range(len(pages[0].layers)):
        keys, values = (torch.cat([page.layers[index][part] for page in pages], dim=-2) for part in (0, 1))
        past.update(keys, values, index)
        layer = past.layers[index]
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.cumulative_length = total  # what the window has dropped counts as well
    memory = pages[-1].memory
    if memory.open_segment is not None:
        opened = replace(memory.open_segment, ids=torch.full_like(memory.open_segment.ids, segment_id))
        memory = replace(memory, open_segment=opened)
    return past, memory


def _newest(layer: object, tokens: int) -> tuple[Tensor, Tensor] | None:
    """Copy the newest keys and values of a layer; None for a kind of layer that keeps more than these."""
    sliding = type(layer) is DynamicSlidingWindowLayer and not layer.record_past
    if not isinstance(layer, DynamicLayer) or not (sliding or type(layer) is DynamicLayer):
        return None
    if layer.keys is None or layer.values is None:
        return None
    keys, values = (
        t[..., -tokens:, :].clone(memory_format=torch.contiguous_format) for t in (layer.keys, layer.values)
    )
    return keys, values


def _tensors(memory: MemoryState) -> Iterable[Tensor]:
    """Give every tensor of a memory, in one order, except the number of its open message."""
    yield from (memory.layers[name] for name in sorted(memory.layers))
    opened = memory.open_segment
    if opened is not None:
        yield opened.counts
        for parts in (opened.sums, opened.before):
            yield from (parts[name] for name in sorted(parts))


def _state_digest(memory: MemoryState) -> bytes:
    # In one piece, for a device is asked once.
    values = torch.cat([tensor.flatten().float() for tensor in _tensors(memory)]).cpu()
    return hashlib.sha256(memory.fingerprint.encode() + values.numpy().tobytes()).digest()
