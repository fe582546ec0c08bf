"""A chat model as most are: it reads what fits into its window, and knows nothing of what came before."""

from pathlib import Path
from typing import Any

import torch
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr
from transformers import AutoModelForCausalLM, AutoTokenizer

import backbone

__all__ = ["PlainChat"]

_FOLDER = Path(backbone.__file__).parent / "tiny" / "model"
_REPLY_TOKENS = 48


class PlainChat(BaseChatModel):
    """Chat with the bundled decoder alone, without its memory; it stands for the model of an agent that exists.

    window_tokens: the prompt's largest number of tokens; the oldest messages are left out.
    """

    window_tokens: int = 512
    _model: Any = PrivateAttr()
    _tokenizer: Any = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Load the decoder and its tokenizer."""
        super().model_post_init(context)
        self._model = AutoModelForCausalLM.from_pretrained(_FOLDER)
        self._tokenizer = AutoTokenizer.from_pretrained(_FOLDER)

    def prompt(self, messages: list[BaseMessage]) -> str:
        """Return the newest messages that fit into the window, as the chat template writes them."""
        shown: Any = convert_to_openai_messages(messages)
        while True:
            text: str = self._tokenizer.apply_chat_template(shown, tokenize=False, add_generation_prompt=True)
            if len(shown) == 1 or len(self._tokenizer(text).input_ids) <= self.window_tokens:
                return text
            shown = shown[1:]

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - the signature is LangChain's
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - as above
        **kwargs: Any,  # noqa: ARG002 - as above
    ) -> ChatResult:
        given = self._tokenizer(self.prompt(messages), return_tensors="pt")
        with torch.inference_mode():
            ids = self._model.generate(**given, max_new_tokens=_REPLY_TOKENS, do_sample=False)[0]
        text = self._tokenizer.decode(ids[given.input_ids.shape[1] :], skip_special_tokens=True)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text.strip()))])

    @property
    def _llm_type(self) -> str:
        return "plain-chat"
