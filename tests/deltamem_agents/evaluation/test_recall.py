"""What the bundled model recalls after the text has left its prompt."""

import pytest

from backbone import ConfigError, RecallQuestion
from deltamem_agents.evaluation.recall import RecallOptions, is_right, run_recall

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
    figures = run_recall(RecallOptions(facts=4, distance=500, threads=6, seed=5))

    assert set(figures) == KEYS
    assert figures["n"] == 24
    assert figures["prompt_contains_fact"] == 0
    assert figures["zeroed"] <= figures["chance"] + 0.05
    assert figures["shuffled"] <= figures["chance"] + 0.1  # 24 questions; one by luck is 0.04
    assert figures["exact_match"] >= 0.9
    assert figures["full_context"] >= 0.9
    assert figures["never_told"] >= 0.9


@pytest.mark.slow
def test_an_archive_answers_beside_the_memory() -> None:
    """With an archive the bundled model answers from what is quoted, also where its memory is empty."""
    figures = run_recall(RecallOptions(facts=4, distance=300, threads=4, seed=5, archive=True))

    assert set(figures) == KEYS | {"archive_only", "hybrid", "hybrid_never_told"}
    assert figures["archive_only"] >= figures["zeroed"] + 0.4
    assert figures["hybrid"] >= 0.9


TOLD = RecallQuestion("Which?", "The test command is make test.", "make test", ("make test", "tox -e unit", "go test"))
NEVER = RecallQuestion("Which?", "The test command is unknown to me.", None, TOLD.values)


@pytest.mark.parametrize(
    ("reply", "question", "exact", "right"),
    [
        ("The test command is make test.", TOLD, True, True),
        ("You run them with `Make test`.", TOLD, True, False),
        ("You run them with `Make test`.", TOLD, False, True),
        ("Either make test or go test.", TOLD, False, False),
        ("Run cargo test.", TOLD, False, False),
        ("Use make tests.", TOLD, False, False),
        ("You have not told me.", NEVER, False, True),
        ("You have not told me.", NEVER, True, False),
        ("Perhaps go test?", NEVER, False, False),
    ],
)
def test_what_counts_as_right(reply: str, question: RecallQuestion, exact: bool, right: bool) -> None:
    """The bundled model must answer word for word; other models must name the value, whole, and no other."""
    assert is_right(reply, question, exact=exact) is right


def test_recall_refuses_a_single_thread() -> None:
    """Another thread's memory needs another thread."""
    with pytest.raises(ConfigError, match="at least 2"):
        RecallOptions(threads=1)
