"""What the bundled model recalls after the text has left its prompt."""

import pytest

from backbone import ConfigError
from deltamem_agents.evaluation.recall import RecallOptions, run_recall

KEYS = {
    "exact_match",
    "zeroed",
    "shuffled",
    "full_context",
    "never_told",
    "chance",
    "n",
    "prompt_contains_fact",
}


@pytest.mark.slow
def test_memory_recalls_what_its_controls_cannot() -> None:
    """Facts that no prompt holds are answered from the memory, and not without it or with another thread's."""
    figures = run_recall(RecallOptions(facts=2, distance=120, threads=8, seed=5))

    assert set(figures) == KEYS
    assert figures["n"] == 16
    assert figures["prompt_contains_fact"] == 0
    assert figures["zeroed"] <= figures["chance"] + 0.05
    assert figures["exact_match"] >= figures["shuffled"] + 0.3
    assert figures["full_context"] >= 0.9


def test_recall_refuses_a_single_thread() -> None:
    """Another thread's memory needs another thread."""
    with pytest.raises(ConfigError, match="at least 2"):
        RecallOptions(threads=1)
