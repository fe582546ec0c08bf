"""Read LoCoMo: long conversations between two people, and questions with the turns that answer them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from backbone import ConfigError

__all__ = ["CATEGORIES", "Conversation", "Question", "Turn", "load_locomo"]

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}

_TURN_ID = re.compile(r"D:?(\d+):(\d+)")


@dataclass(frozen=True, slots=True)
class Turn:
    """Hold what one speaker said, in which session."""

    id: str
    session: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """Hold a question, its category, and the ids of the turns that answer it."""

    text: str
    category: str
    evidence: frozenset[str]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Hold the turns of one conversation in their order, and the questions about it that name their evidence."""

    name: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]


def load_locomo(path: Path) -> list[Conversation]:
    """Read locomo10.json; raises ConfigError for a file of another form."""
    try:
        return [_conversation(sample) for sample in json.loads(path.read_text(encoding="utf-8"))]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is not a LoCoMo file such as locomo10.json ({error!r})") from error


def _conversation(sample: dict[str, object]) -> Conversation:
    said = sample["conversation"]
    asked = sample["qa"]
    if not isinstance(said, dict) or not isinstance(asked, list):
        raise TypeError("conversation or qa")
    sessions = sorted((name for name in said if re.fullmatch(r"session_\d+", name)), key=lambda name: int(name[8:]))
    turns = tuple(
        Turn(turn["dia_id"], session, f"{turn['speaker']}: {turn['text']}")
        for session in sessions
        for turn in said[session]
    )
    known = {turn.id for turn in turns}
    questions = (
        Question(question["question"], CATEGORIES[question["category"]], _evidence(question["evidence"]) & known)
        for question in asked
    )
    return Conversation(str(sample["sample_id"]), turns, tuple(question for question in questions if question.evidence))


def _evidence(written: list[str]) -> frozenset[str]:
    """Read ids that come as "D8:6; D9:17", "D:11:26" or "D30:05" too."""
    return frozenset(f"D{int(session)}:{int(turn)}" for text in written for session, turn in _TURN_ID.findall(text))
