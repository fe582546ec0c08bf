"""Chat templates of the shapes that models in the wild have, each in as few lines as show the shape."""

from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

QWEN3 = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and not message.content.startswith('<tool_response>') %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content or '' %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

# A system block is always printed; the loop runs over what is left; a second system message is silently left out. Tools
# have names of their own, and calls are not printed.
SMOLLM3 = """\
{%- set ns = namespace(system="You are a helpful assistant.") -%}
{%- set rest = messages -%}
{%- if messages[0].role == "system" -%}
  {%- set ns.system = messages[0].content -%}
  {%- set rest = messages[1:] -%}
{%- endif -%}
<|im_start|>system
## Metadata
Reasoning: off

{{ ns.system.replace("/no_think", "").rstrip() }}
{% if xml_tools or python_tools -%}
{%- if xml_tools -%}
<tools>
{%- for tool in xml_tools[:] %}
{{ tool | string }}
{%- endfor %}
</tools>
{% endif -%}
{%- if python_tools -%}
<code>
{%- for tool in python_tools[:] %}
{{ tool | string }}
{%- endfor %}
</code>
{% endif -%}
{% endif -%}
<|im_end|>
{# The dialogue #}
{%- for message in rest -%}
  {%- set content = message.content if message.content is string else "" -%}
  {%- if message.role == "user" -%}
    {{ "<|im_start|>user\\n" + content + "<|im_end|>\\n" }}
  {%- elif message.role == "assistant" -%}
    {% generation %}
    {{ "<|im_start|>assistant\\n<think>\\n\\n</think>\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
    {% endgeneration %}
  {%- elif message.role == "tool" -%}
    {{ "<|im_start|>user\\n" + content + "<|im_end|>\\n" }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{ "<|im_start|>assistant\\n" }}
{%- endif -%}
"""

# Instruct models of the Qwen3 family know no reasoning: what an assistant said is printed as it is.
QWEN3_INSTRUCT = """\
{%- set tooled = tools is defined and tools %}
{%- if tooled or messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content }}{% endif %}
    {%- if tooled %}
        {{- '\\n\\n# Tools\\n<tools>' }}
        {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{% endfor %}
        {{- '\\n</tools>' }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' + content }}
        {%- for call in message.tool_calls or [] %}
            {%- if content or not loop.first %}{{- '\\n' }}{% endif %}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or loop.previtem.role != 'tool' %}{{- '<|im_start|>user' }}{% endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\\n' }}{% endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""

# Thinking models of the family: as QWEN3, but every reply begins inside its reasoning.
QWEN3_THINKING = (
    QWEN3[: QWEN3.index("{%- if add_generation_prompt %}")]
    + """\
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n<think>\\n' }}
{%- endif %}
"""
)

# The system block says how to reason, by an option or a word of the system message; tools come as an option too.
SMOLLM3_MODES = """\
{%- set ns = namespace(mode="/think" if enable_thinking is not defined or enable_thinking else "/no_think", said="") -%}
{%- set rest = messages -%}
{%- if messages[0].role == "system" -%}
  {%- set ns.said = messages[0].content -%}
  {%- set rest = messages[1:] -%}
  {%- if "/no_think" in ns.said -%}{%- set ns.mode = "/no_think" -%}
  {%- elif "/think" in ns.said -%}{%- set ns.mode = "/think" -%}{%- endif -%}
  {%- set ns.said = ns.said.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
{{- "<|im_start|>system\\nMode: " + ns.mode + "\\nDate: " + strftime_now("%d %B %Y") + "\\n\\n" -}}
{{- ns.said if ns.said else "You are an assistant." -}}
{%- if xml_tools -%}
  {{- "\\n\\n<tools>" -}}
  {%- for tool in xml_tools -%}{{- "\\n" + (tool | string) -}}{%- endfor -%}
  {{- "\\n</tools>" -}}
{%- endif -%}
{{- "<|im_end|>\\n" -}}
{%- for message in rest -%}
  {%- set content = message.content if message.content is string else "" -%}
  {%- if message.role == "assistant" -%}
    {%- generation -%}
    {{- "<|im_start|>assistant\\n" -}}
    {%- if ns.mode == "/no_think" -%}{{- "<think>\\n\\n</think>\\n" -}}{%- endif -%}
    {{- content.lstrip("\\n") + "<|im_end|>\\n" -}}
    {%- endgeneration -%}
  {%- else -%}
    {{- "<|im_start|>user\\n" + content + "<|im_end|>\\n" -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- "<|im_start|>assistant\\n" -}}
  {%- if ns.mode == "/no_think" -%}{{- "<think>\\n\\n</think>\\n" -}}{%- endif -%}
{%- endif -%}
"""

# Whitespace is left to trim_blocks and lstrip_blocks; anything but strict alternation is refused; eos at the very end.
ALTERNATING = """\
{% if messages[0].role == 'system' %}
    {% set first = messages[0].content + '\\n\\n' %}
    {% set rest = messages[1:] %}
{% else %}
    {% set first = '' %}
    {% set rest = messages %}
{% endif %}
{% for turn in rest %}
    {% if (turn.role == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% if loop.first %}
[INST] {{ first + turn.content }} [/INST]
    {% elif turn.role == 'user' %}
[INST] {{ turn.content }} [/INST]
    {% else %}
        {{ turn.content | trim }}<|endoftext|>
    {% endif %}
{% endfor %}
{% if not add_generation_prompt %}<|endoftext|>{% endif %}
"""

# The first user message is printed by hand, with the tools, before the loop over the others.
FIRST_BY_HAND = """\
{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}
{%- else %}{% set system = '' %}{% endif %}
{{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' }}
{%- if tools %}
    {{- '<|im_start|>user\\nYou have tools: ' }}{{- tools | tojson }}
    {{- '\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


@pytest.fixture(scope="session")
def templates() -> dict[str, str]:
    """Return template sources by the name of their shape."""
    return {
        "qwen3": QWEN3,
        "qwen3_instruct": QWEN3_INSTRUCT,
        "qwen3_thinking": QWEN3_THINKING,
        "smollm3": SMOLLM3,
        "smollm3_modes": SMOLLM3_MODES,
        "alternating": ALTERNATING,
        "first_by_hand": FIRST_BY_HAND,
    }


@pytest.fixture(scope="session")
def shaped(
    make_tokenizer: Callable[..., PreTrainedTokenizerFast], templates: dict[str, str]
) -> dict[str, PreTrainedTokenizerFast]:
    """Return a tokenizer for each shape of template."""
    return {shape: make_tokenizer(source) for shape, source in templates.items()}
