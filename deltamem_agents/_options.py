"""The options of a local chat model, and how a call's own options join them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from langchain_core.messages import BaseMessage
from pydantic import BaseModel, ConfigDict, Field, model_validator

from backbone import ConfigError, Engine, EngineRegistry, Sampling, default_registry
from deltamem_agents._turn import TurnRequest
from deltamem_agents.memory_cell import MemoryCell, carried_memory
from deltamem_agents.structured import reply_shape

__all__ = ["SAMPLING_OPTIONS", "TurnOptions"]

SAMPLING_OPTIONS = ("max_tokens", "temperature", "top_p", "top_k", "seed")
_BUNDLED_NAME = "deltamem-tiny"
_BUNDLED_WINDOW, _BUNDLED_KEEP = 512, 128
_WINDOW, _KEEP = 4096, 1024
_PREFIX_CACHE_BYTES = 256 * 2**20
# What hosted models take and a local one has no use for; accepted, so that one can be put in another's place.
_HOSTED_OPTIONS = frozenset({"api_key", "max_retries", "timeout"})
_CALL_OPTIONS = frozenset({"strict", "stream", "stream_usage"})


class TurnOptions(BaseModel):
    """Hold which model runs and how a turn is made; ChatDeltaMem describes each."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: str | Path | None = None
    adapter: str | Path | None = None
    revision: str | None = None
    device: str | torch.device | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | torch.dtype | None = None
    window_tokens: int | None = Field(default=None, gt=0)
    keep_tokens: int | None = Field(default=None, gt=0)
    max_tokens: int = Field(default=256, gt=0)
    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    seed: int | None = Field(default=None, ge=0)
    stop: list[str] | None = None
    streaming: bool = False
    template_options: dict[str, Any] = Field(default_factory=dict)
    prefix_cache_bytes: int = Field(default=_PREFIX_CACHE_BYTES, ge=0)
    registry: EngineRegistry | None = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_options(cls, values: Any) -> Any:
        unknown = sorted(set(values) - set(cls.model_fields) - _HOSTED_OPTIONS) if isinstance(values, dict) else []
        if unknown:
            raise ConfigError(f"ChatDeltaMem has no options {unknown}; it has {sorted(cls.model_fields)}")
        return values

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        window, keep = self.window
        if keep >= window:
            raise ConfigError(f"keep_tokens must be below window_tokens, got {keep} and {window}")
        return self

    @property
    def window(self) -> tuple[int, int]:
        """Give window_tokens and keep_tokens as they apply."""
        window, keep = (_BUNDLED_WINDOW, _BUNDLED_KEEP) if self.model is None else (_WINDOW, _KEEP)
        if self.window_tokens is not None:
            keep = min(keep, max(1, self.window_tokens // 4))
        return self.window_tokens or window, self.keep_tokens or keep

    @property
    def model_name(self) -> str:
        """Give the name that replies report."""
        return _BUNDLED_NAME if self.model is None else str(self.model)

    @property
    def engine(self) -> Engine:
        """Give the engine that runs this model, loading it the first time."""
        registry = default_registry() if self.registry is None else self.registry
        dtype = getattr(torch, self.dtype) if isinstance(self.dtype, str) else self.dtype
        return registry.get(self.model, adapter=self.adapter, revision=self.revision, device=self.device, dtype=dtype)

    def for_call(self, options: dict[str, Any]) -> Self:
        """Return this model, or with a `model` option of the call the same settings for that model."""
        other = options.pop("model", None)
        return self if other is None or str(other) == self.model_name else self.model_copy(update={"model": other})

    def turn_request(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        cell: MemoryCell | None,
        options: dict[str, Any],
    ) -> TurnRequest:
        """Join the constructor's options with those of the call; raises ConfigError for options there are not."""
        shape = reply_shape(
            options.pop("tools", None) or (),
            options.pop("tool_choice", None),
            options.pop("response_format", None),
            many=bool(options.pop("parallel_tool_calls", False)),
        )
        sampling = Sampling(**{name: options.pop(name, getattr(self, name)) for name in SAMPLING_OPTIONS})
        template_options: Mapping[str, Any] = {**self.template_options, **options.pop("template_options", {})}
        unknown = sorted(set(options) - _CALL_OPTIONS)
        if unknown:
            raise ConfigError(
                f"a call of ChatDeltaMem has no options {unknown}; it takes tools, {', '.join(SAMPLING_OPTIONS)}"
            )
        window, keep = self.window
        wanted: Sequence[str] | None = self.stop if stop is None else stop
        return TurnRequest(
            messages=tuple(messages),
            memory=carried_memory(messages) if cell is None else cell.current,
            tools=shape.tools,
            sampling=sampling,
            stop=(wanted,) if isinstance(wanted, str) else tuple(wanted or ()),
            window_tokens=window,
            keep_tokens=keep,
            constrain=shape.constrain,
            plain=shape.plain,
            template_options=template_options,
            absorb_only=cell is not None and cell.absorb_only,
        )
