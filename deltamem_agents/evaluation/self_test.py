"""See in a few seconds whether the memory works at all, on the bundled model."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from backbone import RecallProbe, recall_probe
from deltamem_agents.chat_models import ChatDeltaMem
from deltamem_agents.memory_cell import use_memory
from deltamem_agents.working_memory import WorkingMemory

__all__ = ["SelfTest", "run_self_test"]

FACTS = 4
DISTANCE = 200
WINDOW_TOKENS, KEEP_TOKENS = 160, 64


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Say how many of the `asked` facts were answered, with the memory and with it set to zero, and in what time.

    leaked: prompts that still held a fact as text, which would make the answers worth nothing.
    """

    asked: int
    answered: int
    answered_without: int
    leaked: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Tell whether most facts came out of the memory, and out of nothing else."""
        return self.answered * 2 > self.asked and self.answered_without < self.answered and not self.leaked


def run_self_test() -> SelfTest:
    """Tell the bundled model four facts, fill its window with other things, and ask; loading it is not timed."""
    model = ChatDeltaMem(window_tokens=WINDOW_TOKENS, keep_tokens=KEEP_TOKENS, max_tokens=24, prefix_cache_bytes=0)
    probe = recall_probe(
        0,
        facts=FACTS,
        distance=DISTANCE,
        updates=False,
        questions=FACTS,
        never_told=0,
        count_tokens=model.get_num_tokens,  # which loads the model
    )
    begin = time.perf_counter()
    messages = [
        (HumanMessage if said["role"] == "user" else AIMessage)(said["content"], id=f"m{at}")
        for at, said in enumerate(probe.messages)
    ]
    with use_memory() as cell:
        model.invoke([*messages, HumanMessage(probe.questions[0].text, id="first")])
    memory = WorkingMemory.from_bytes(cell.out or b"")
    answered, leaked = _ask(model, probe, messages, memory)
    answered_without, _ = _ask(model, probe, messages, memory.with_state(memory.state.decay(0.0)))
    return SelfTest(len(probe.questions), answered, answered_without, leaked, time.perf_counter() - begin)


def _ask(
    model: ChatDeltaMem, probe: RecallProbe, messages: Sequence[BaseMessage], memory: WorkingMemory
) -> tuple[int, int]:
    """Ask every question apart; return how many replies were right, and how many prompts held a fact."""
    right = leaked = 0
    for question in probe.questions:
        with use_memory(memory.to_bytes(), read_only=True) as cell:
            reply = model.invoke([*messages, HumanMessage(question.text, id="question")])
        right += reply.text.strip() == question.reply
        prompt = "" if cell.report is None else cell.report.prompt_text
        leaked += any(text in prompt for text in probe.fact_texts)
    return right, leaked
