"""Lay out a turn's tokens: which message each belongs to, and which of them are written to the memory."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import BaseMessage

from backbone import RenderedPrompt, TokenPrompt, render_prompt
from deltamem_agents.messages import to_entries, to_template_message
from deltamem_agents.window import Entry, Selection, Slice, TurnPlan, plan_turn, select_messages
from deltamem_agents.working_memory import WorkingMemory

__all__ = ["TurnTokens", "lay_out"]


@dataclass(frozen=True, slots=True)
class TurnTokens:
    """Hold the rendered messages of a turn and the plan made for them.

    spans: half-open token span of each selected message, by its index in the caller's list. sentences: the sentence of
    each token, for adapters that write sentences; else None, and a message is one segment. left_out: messages that a
    policy keeps out of the memory. decays: what the memory is scaled by before a message.
    """

    entries: Sequence[Entry]
    selection: Selection
    ids: tuple[int, ...]
    spans: Mapping[int, tuple[int, int]]
    plan: TurnPlan
    sentences: tuple[int, ...] | None = None
    left_out: frozenset[int] = frozenset()
    decays: Mapping[int, float] = field(default_factory=dict)

    def absorb_pass(self, slices: Sequence[Slice]) -> TokenPrompt:
        """Return the prompt of one absorbing pass: system messages and these slices, without generation prompt."""
        runs = {part.message: (part.start, part.stop) for part in slices}
        return self._assemble(runs, trailing=False)

    def reply_prompt(self) -> TokenPrompt:
        """Return the prompt that is answered: system messages, the window, and the generation prompt."""
        lengths = {index: self.spans[index][1] - self.spans[index][0] for index in self.plan.window}
        return self._assemble({index: (0, length) for index, length in lengths.items()}, trailing=True)

    def owners(self, wanted: Collection[bytes]) -> dict[int, bytes]:
        """Say of each segment of these messages which of them it belongs to; they are named by their digests."""
        found: dict[int, bytes] = {}
        for index, (begin, end) in self.spans.items():
            if self.entries[index].digest in wanted:
                segments = (index,) if self.sentences is None else self.sentences[begin:end]
                found.update((segment, self.entries[index].digest) for segment in segments if segment >= 0)
        return found

    def _written(self, index: int) -> bool:
        return index not in self.selection.repeated and index not in self.left_out and self.entries[index].written

    def _assemble(self, runs: Mapping[int, tuple[int, int]], *, trailing: bool) -> TokenPrompt:
        first, last = self.selection.indices[0], self.selection.indices[-1]
        ids = list(self.ids[: self.spans[first][0]])  # what the template prints before any message (tools)
        segments = [-1] * len(ids)
        starts = set()
        decays = []
        for index in self.selection.indices:
            begin, end = self.spans[index]
            written = index in runs and self._written(index)
            if written and index in self.decays and runs[index][0] == 0:
                decays.append((len(ids), self.decays[index]))
            if index in runs:
                begin, end = begin + runs[index][0], begin + runs[index][1]
            elif self.entries[index].role != "system":
                continue
            if self.entries[index].role == "assistant":
                starts.add(len(ids))
            ids.extend(self.ids[begin:end])
            if written and self.sentences is not None:
                segments.extend(self.sentences[begin:end])
            else:
                segments.extend([index if written else -1] * (end - begin))
        if trailing:
            tail = self.ids[self.spans[last][1] :]
            ids.extend(tail)
            segments.extend([-1] * len(tail))
        writes = tuple(segment >= 0 for segment in segments)
        cuts = _cuts(writes, starts | {place for place, _ in decays})
        return TokenPrompt(tuple(ids), writes, tuple(segments), cuts, tuple(decays))


def _cuts(writes: Sequence[bool], starts: set[int]) -> tuple[int, ...]:
    """Return where the prompts of other turns may go on: before a reply, and where what is written begins or ends.

    A turn's prompt ends where its reply will begin, so the next turn's pieces are those of this one, and the new ones.
    """
    edges = {at for at in range(1, len(writes)) if writes[at] != writes[at - 1]}
    return tuple(sorted((edges | starts) - {0, len(writes)}))


def lay_out(
    tokenizer: Any,
    messages: Sequence[BaseMessage],
    tools: Sequence[Mapping[str, Any]],
    memory: WorkingMemory,
    *,
    window_tokens: int,
    keep_tokens: int,
    by_sentence: bool,
    template_options: Mapping[str, Any],
    unwritten: Collection[bytes] = (),
    decays: Mapping[bytes, float] | None = None,
) -> TurnTokens:
    """Render what the memory has not absorbed, and plan what leaves the window now.

    by_sentence: the adapter writes sentences, not messages or tokens. unwritten, decays: what policies have decided, by
    the messages' digests.
    Raises PromptError for messages that cannot be rendered, WindowOverflowError if the newest does not fit.
    """
    entries = to_entries(messages)
    selection = select_messages(entries, memory.digests, forgot_digests=memory.forgot_digests)
    shaped = [to_template_message(messages[index]) for index in selection.indices]
    rendered: RenderedPrompt = render_prompt(
        tokenizer, shaped, tools or None, number_sentences=by_sentence, **template_options
    )
    spans = dict(zip(selection.indices, rendered.spans, strict=True))
    left_out = frozenset(index for index in selection.indices if entries[index].digest in unwritten)
    fading = {i: decays[entries[i].digest] for i in selection.indices if decays and entries[i].digest in decays}
    plan = plan_turn(
        entries,
        selection,
        {index: end - begin for index, (begin, end) in spans.items()},
        trailing=len(rendered.ids) - rendered.spans[-1][1],
        window_tokens=window_tokens,
        keep_tokens=keep_tokens,
        left_out=left_out,
    )
    return TurnTokens(entries, selection, rendered.ids, spans, plan, rendered.sentences, left_out, fading)
