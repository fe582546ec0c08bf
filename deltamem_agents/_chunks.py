"""Turn the events of a turn into the message chunks that LangChain streams."""

import base64
import json
import uuid
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from backbone import InvalidToolCall, ReasoningDelta, TextDelta, ToolCall
from deltamem_agents._turn import ReplyEvent, TurnEnd
from deltamem_agents.memory_cell import MEMORY_KEY

__all__ = ["ChunkMaker"]

PROVIDER = "deltamem"


class ChunkMaker:
    """Make the chunks of one reply; the last one carries usage, finish reason and the model's name."""

    def __init__(self, model_name: str, *, carry_memory: bool) -> None:
        """carry_memory: the last chunk also carries the new memory, because nothing else would keep it."""
        self._model_name = model_name
        self._carry_memory = carry_memory
        self._calls = 0

    def reply(self, event: ReplyEvent) -> ChatGenerationChunk:
        """Return the chunk of more text or reasoning, or of a complete tool call."""
        match event:
            case TextDelta(text):
                return ChatGenerationChunk(message=AIMessageChunk(content=text))
            case ReasoningDelta(text):
                message = AIMessageChunk(content="", additional_kwargs={"reasoning_content": text})
                return ChatGenerationChunk(message=message)
            case ToolCall(name, arguments):
                return self._call(name, json.dumps(arguments, ensure_ascii=False))
            case InvalidToolCall(name, raw):
                # The opening tag keeps LangChain from repairing what is broken: it stays an invalid call, as written.
                return self._call(name, f"<tool_call>\n{raw}\n</tool_call>")

    def end(self, end: TurnEnd) -> ChatGenerationChunk:
        """Return the last chunk."""
        metadata: dict[str, Any] = {
            "model_name": self._model_name,
            "model_provider": PROVIDER,
            "finish_reason": end.reason,
            "prefix_cache": {"cached_tokens": end.cached_tokens, "computed_tokens": end.computed_tokens},
        }
        if self._carry_memory and end.memory is not None:
            metadata[MEMORY_KEY] = base64.b64encode(end.memory).decode("ascii")
        usage = UsageMetadata(
            input_tokens=end.input_tokens,
            output_tokens=end.output_tokens,
            total_tokens=end.input_tokens + end.output_tokens,
            input_token_details=InputTokenDetails(cache_read=end.cached_input_tokens),
            output_token_details=OutputTokenDetails(reasoning=end.reasoning_tokens),
        )
        message = AIMessageChunk(content="", response_metadata=metadata, usage_metadata=usage, chunk_position="last")
        return ChatGenerationChunk(message=message)

    def _call(self, name: str | None, arguments: str) -> ChatGenerationChunk:
        chunk = tool_call_chunk(name=name, args=arguments, id=f"call_{uuid.uuid4().hex[:24]}", index=self._calls)
        self._calls += 1
        return ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[chunk]))
