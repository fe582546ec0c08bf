"""What a thread with memory is timed against."""

from collections.abc import Callable
from pathlib import Path

import torch
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from transformers import AutoModelForCausalLM, AutoTokenizer

from backbone import render_prompt
from deltamem_agents import ChatDeltaMem, use_memory
from deltamem_agents.evaluation.threads import MAX_REPLY_TOKENS, answer_without_memory, read_without_memory
from deltamem_agents.messages import to_template_message


def test_the_full_history_is_answered_by_the_frozen_backbone(
    make_model: Callable[..., ChatDeltaMem], model_folder: Path
) -> None:
    """The reply is that of the decoder without an adapter, however its prompt is read, and no memory has a say."""
    messages: list[BaseMessage] = [HumanMessage("my name is hello"), AIMessage("yes"), HumanMessage("what is my name")]
    model = make_model(max_tokens=MAX_REPLY_TOKENS)
    backbone = model.engine.backbone
    whole, pieces = (
        [token for token in answer_without_memory(backbone, messages, piece=piece) if token is not None]
        for piece in (512, 7)
    )

    plain = AutoModelForCausalLM.from_pretrained(model_folder)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    ids = torch.tensor([render_prompt(tokenizer, [to_template_message(message) for message in messages]).ids])
    expected = plain.generate(ids, do_sample=False, max_new_tokens=MAX_REPLY_TOKENS)[0, ids.shape[1] :].tolist()
    (past,) = read_without_memory(backbone, messages)
    assert 0 < past.get_seq_length() < ids.shape[1]
    warm = list(answer_without_memory(backbone, messages, past=past))
    assert whole == pieces == warm == expected
    with use_memory():
        assert model.invoke(messages).text != tokenizer.decode(expected)
