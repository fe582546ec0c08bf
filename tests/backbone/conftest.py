"""Small real parts that several tests share: byte-level BPE tokenizers and random models with a working memory."""

from collections.abc import Callable

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from backbone import DeltaMemConfig, MemoryModel, attach_memory

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAGS = [
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
    "<think>",
    "</think>",
]

# What follows has the shapes of templates in the wild, in as few lines as show the shape.
CHATML = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{% endif %}
    {{- '# Tools\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{% endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' + (message.content or '') }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{% endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{% endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}
"""


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """Make a byte-level BPE tokenizer with a chat template; `tags` False leaves the Hermes tags to plain text."""

    def make(template: str = CHATML, *, tags: bool = True) -> PreTrainedTokenizerFast:
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        corpus = [
            '{"name": "get_weather", "arguments": {"city": "Oslo"}}',
            "user assistant system tool the weather in",
        ] * 4
        trainer = trainers.BpeTrainer(
            vocab_size=330, special_tokens=CONTROL, initial_alphabet=alphabet, show_progress=False
        )
        core.train_from_iterator(corpus, trainer)
        if tags:
            core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
        tokenizer.chat_template = template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a Qwen-like model."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def make_model() -> Callable[..., MemoryModel]:
    """Make a small random Qwen3 with a random memory that matters to its logits."""

    def make(granularity: str = "token", *, vocab_size: int = 400) -> MemoryModel:
        config = Qwen3Config(
            vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, max_position_embeddings=512, tie_word_embeddings=False,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            frozen = Qwen3ForCausalLM(config).eval()
            model = attach_memory(frozen, DeltaMemConfig(granularity=granularity), seed=0)
            for parameter in model.memory_layers.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
        model.refresh_fingerprint()
        return model

    return make


@pytest.fixture(scope="session")
def model(make_model: Callable[..., MemoryModel]) -> MemoryModel:
    """Return a model whose memory writes every token."""
    return make_model()


@pytest.fixture(scope="session")
def message_model(make_model: Callable[..., MemoryModel]) -> MemoryModel:
    """Return a model whose memory writes once a message."""
    return make_model("message")
