"""ChatDeltaMem: a local chat model whose memory outlives its prompt."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.language_models.chat_models import BaseChatModel, generate_from_stream
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from backbone import Engine, Job, render_prompt
from deltamem_agents._chunks import PROVIDER, ChunkMaker
from deltamem_agents._measuring import MessageSignals
from deltamem_agents._options import SAMPLING_OPTIONS, TurnOptions
from deltamem_agents._turn import TurnEnd, TurnEvent, TurnRequest, measure_turn, run_turn
from deltamem_agents.memory_cell import MemoryCell, active_cell, use_memory
from deltamem_agents.messages import to_template_message
from deltamem_agents.structured import StructuredMethod, output_parser, reply_shape, structured_call, with_parser

__all__ = ["ChatDeltaMem"]


class ChatDeltaMem(TurnOptions, BaseChatModel):
    """Chat with a local model whose older messages live on in a working memory instead of in the prompt.

    model, adapter, revision, device, dtype: as backbone.load_backbone takes them, dtype also by its name; model None is
    the bundled one, whose adapters are "msw" (the default), "tsw" and "ssw". window_tokens: the prompt's largest number
    of tokens, system messages and tools aside; keep_tokens: how many of them stay when older messages leave. Unset,
    they are 512 and 128 for the bundled model, 4,096 and 1,024 for others. max_tokens, temperature (0 is greedy),
    top_p, top_k, seed, stop: how a reply is written; each can also be given per call. template_options: passed to the
    chat template, such as {"enable_thinking": False}. prefix_cache_bytes: how much of what was read is kept, so that
    the next turn reads only what is new; models of one engine that give the same number share it, and 0 keeps nothing.
    registry: where loaded models are shared; None is one for the process.

    Making one is cheap; weights are loaded with the first reply. Raises pydantic's ValidationError for options that
    cannot work.
    """

    # An answer from LangChain's cache would skip the turn that the memory has to see.
    cache: bool | None = False

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to the model, or force a call.

        tool_choice: None or "auto" leaves the choice to the model, "none" hides the tools, "any", "required" and True
        force a call, a tool's name or {"type": "function", "function": {"name": ...}} forces a call of that tool.
        Forced calls are valid by construction: decoding follows the tools' schemas. parallel_tool_calls: a forced reply
        may hold several. Raises ConfigError for a tool_choice that names no tool.
        """
        schemas = [convert_to_openai_tool(tool) for tool in tools]
        reply_shape(schemas, tool_choice, None, many=parallel_tool_calls)
        options = {"tools": schemas, "tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls, **kwargs}
        return self.bind(**options)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: StructuredMethod = "function_calling",
        include_raw: bool = False,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Make replies fit a schema: a pydantic class, a TypedDict or a JSON schema.

        method: a forced tool call, or ("json_schema", "json_mode") a reply that is JSON; either way decoding follows
        the schema, so strict changes nothing. include_raw: return {"raw", "parsed", "parsing_error"} instead of raising
        on a reply that max_tokens cut off. Raises ConfigError for another method.
        """
        kwargs.pop("strict", None)
        bound = self.bind(**structured_call(schema, method), **kwargs)
        return with_parser(bound, output_parser(schema, method), include_raw=include_raw)

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Answer several inputs; inside use_memory all of them read the memory and none changes it."""
        with _read_only_cell():
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Answer several inputs; inside use_memory all of them read the memory and none changes it."""
        with _read_only_cell():
            return await super().abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)

    def get_token_ids(self, text: str) -> list[int]:
        """Return the model's own token ids of a text, without control tokens; this loads the tokenizer."""
        ids: list[int] = self.engine.backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[dict[str, Any] | type | Callable[..., Any]] | None = None
    ) -> int:
        """Return the tokens of the whole prompt that these messages and tools make, as the chat template writes it.

        Raises PromptError for messages that cannot be rendered.
        """
        shaped = [to_template_message(message) for message in messages]
        schemas = [convert_to_openai_tool(tool) for tool in tools or ()]
        return len(render_prompt(self.engine.backbone.tokenizer, shaped, schemas or None, **self.template_options).ids)

    @property
    def _llm_type(self) -> str:
        return "deltamem-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        window, keep = self.window
        adapter = None if self.adapter is None else str(self.adapter)
        params = {"model": self.model_name, "adapter": adapter, "window_tokens": window, "keep_tokens": keep}
        return params | {name: getattr(self, name) for name in SAMPLING_OPTIONS}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = PROVIDER
        params["ls_model_name"] = str(kwargs.get("model") or self.model_name)
        return params

    def _resolve_model_profile(self) -> ModelProfile:
        # Agents that ask for structured output without forced calls would have to choose between JSON and tools.
        return ModelProfile(
            name=self.model_name,
            open_weights=True,
            max_input_tokens=self.window[0],
            max_output_tokens=self.max_tokens,
            text_inputs=True,
            text_outputs=True,
            tool_calling=True,
            tool_choice=True,
            structured_output=False,
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, run_manager, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        chunks = [chunk async for chunk in self._astream(messages, stop, run_manager, **kwargs)]
        return generate_from_stream(iter(chunks))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        target, cell = self.for_call(kwargs), active_cell()
        request = target.turn_request(messages, stop, cell, kwargs)
        if cell is not None and cell.settling is not None:
            request = cell.settling.settle(request, target._measure)
        maker = ChunkMaker(target.model_name, carry_memory=cell is None)
        for event in _submit(target.engine, request, target.prefix_cache_bytes):
            chunk = _to_chunk(maker, event, cell)
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        target, cell = self.for_call(kwargs), active_cell()
        request = target.turn_request(messages, stop, cell, kwargs)
        if cell is not None and cell.settling is not None:
            request = await cell.settling.asettle(request, target._measure)
        maker = ChunkMaker(target.model_name, carry_memory=cell is None)
        engine = await asyncio.to_thread(lambda: target.engine)  # the first time this loads weights
        async with contextlib.aclosing(aiter(_submit(engine, request, target.prefix_cache_bytes))) as events:
            async for event in events:
                chunk = _to_chunk(maker, event, cell)
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _measure(self, request: TurnRequest, wanted: frozenset[bytes]) -> Mapping[bytes, MessageSignals]:
        """Say what the memory makes of messages, by their digests, before anything is said."""
        backbone, cache = self.engine.backbone, self.engine.prefix_cache(self.prefix_cache_bytes)
        return next(iter(self.engine.submit(lambda: measure_turn(backbone, request, cache, wanted))))


def _submit(engine: Engine, request: TurnRequest, cache_bytes: int) -> Job[TurnEvent]:
    cache = engine.prefix_cache(cache_bytes)
    return engine.submit(lambda: run_turn(engine.backbone, request, cache))


def _to_chunk(maker: ChunkMaker, event: TurnEvent, cell: MemoryCell | None) -> ChatGenerationChunk:
    """Return an event's chunk; the end of a complete reply is where the memory changes hands."""
    if not isinstance(event, TurnEnd):
        return maker.reply(event)
    if cell is not None:
        cell.record(event.memory, event.report)
    return maker.end(event)


@contextlib.contextmanager
def _read_only_cell() -> Iterator[None]:
    """Replace the surrounding cell, if there is one, by one that several calls at once can share."""
    cell = active_cell()
    if cell is None:
        yield
    else:
        with use_memory(cell.current, read_only=True, absorb_only=cell.absorb_only, settling=cell.settling):
            yield
