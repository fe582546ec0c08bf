"""Read a turn's prompts: what leaves the window into the memory, then what is answered."""

from collections.abc import Generator

from backbone import MemoryModel, MemoryState, Prefilled, PrefixCache, TokenPrompt, prefill
from deltamem_agents._measuring import Meter
from deltamem_agents._prompt import TurnTokens
from deltamem_agents.working_memory import WorkingMemory

__all__ = ["TurnReader"]


class TurnReader:
    """Read prompts through the prefix cache, if there is one, and count the tokens it held and those computed."""

    def __init__(self, model: MemoryModel, cache: PrefixCache | None, meter: Meter | None = None) -> None:
        """Start with nothing read. meter: takes what the memory does with the messages that it asks for."""
        self.cached = 0
        self.computed = 0
        self._model = model
        self._cache = cache
        self._meter = meter

    def read(
        self, prompt: TokenPrompt, state: MemoryState, *, need_logits: bool = True
    ) -> Generator[None, None, Prefilled]:
        """Read one prompt from a state, a piece a step."""
        state = state.to(self._model.backbone.device)
        first = None if self._meter is None else self._meter.first_token(prompt)
        prefilled = yield from prefill(
            self._model, prompt, state, need_logits=need_logits, cache=self._cache, measure_from=first
        )
        if self._meter is not None:
            self._meter.take(prompt, prefilled.telemetry)
        self.cached += prefilled.cached_tokens
        self.computed += len(prompt.ids) - prefilled.cached_tokens
        return prefilled

    def absorb(self, tokens: TurnTokens, memory: WorkingMemory) -> Generator[None, None, WorkingMemory]:
        """Write the messages that leave the window, pass by pass, each read from the state that the one before left."""
        plan = tokens.plan
        if not plan.absorbed:
            return memory
        state = memory.state
        for slices in plan.passes:
            prefilled = yield from self.read(tokens.absorb_pass(slices), state, need_logits=False)
            state = prefilled.memory
            yield  # prefill ends without a yield, and the next pass is a step of its own
        count = sum(part.stop - part.start for slices in plan.passes for part in slices)
        return memory.absorb(state.closed(), [tokens.entries[index].digest for index in plan.absorbed], count)
