"""Check which segment each token of a turn belongs to."""

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from backbone import Backbone
from deltamem_agents import ChatDeltaMem, WorkingMemory
from deltamem_agents._prompt import TurnTokens, lay_out

MESSAGES = [
    SystemMessage("Be brief. Be kind."),
    HumanMessage("My name is yes. Hello you."),
    AIMessage("Hello."),
    HumanMessage("What is the weather?"),
]


def laid_out(backbone: Backbone, *, by_sentence: bool) -> TurnTokens:
    limits = {"window_tokens": 200, "keep_tokens": 50}
    empty = WorkingMemory(backbone.model.empty_memory())
    return lay_out(backbone.tokenizer, MESSAGES, (), empty, by_sentence=by_sentence, template_options={}, **limits)


def written(backbone: Backbone, *, by_sentence: bool) -> dict[int, str]:
    """Return the text of each written segment of the reply's prompt."""
    prompt = laid_out(backbone, by_sentence=by_sentence).reply_prompt()
    assert prompt.segment_ids is not None
    assert prompt.write_mask == tuple(segment >= 0 for segment in prompt.segment_ids)
    pairs = list(zip(prompt.segment_ids, prompt.ids, strict=True))
    numbers = sorted({number for number, _ in pairs if number >= 0})
    return {n: backbone.tokenizer.decode([token for number, token in pairs if number == n]) for n in numbers}


def test_a_message_is_a_segment_with_its_template(model: ChatDeltaMem) -> None:
    """For adapters that write messages a segment is a whole message; system messages are not written."""
    texts = list(written(model.engine.backbone, by_sentence=False).values())
    assert [text.count("<|im_start|>") for text in texts] == [1, 1, 1]
    assert "My name is yes. Hello you." in texts[0]


def test_a_sentence_is_a_segment_without_the_template(model: ChatDeltaMem) -> None:
    """For adapters that write sentences a segment is a sentence; template and system messages are not written."""
    texts = list(written(model.engine.backbone, by_sentence=True).values())
    assert texts == ["My name is yes.", " Hello you.", "Hello.", "What is the weather?"]
