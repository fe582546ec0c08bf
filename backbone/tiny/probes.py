"""Generate the conversations that recall is measured on.

Their seeds, and the combinations of fact, value and phrasing that state their facts, are kept from training; a value
that has no such combination is stated as in training. Questions are worded as in training.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from backbone.errors import ConfigError
from backbone.tiny.domain import ATTRIBUTES, attribute
from backbone.tiny.episodes import EpisodeOptions, generate_episode
from backbone.tiny.noise import Message, noise_segment
from backbone.tiny.phrasing import PLAIN_REPLIES, answer_text, question_text

__all__ = ["RecallProbe", "RecallQuestion", "recall_probe"]

# Training draws its seeds from small numbers; measurements start far away from them.
SEED_OFFSET = 10_000_000


@dataclass(frozen=True)
class RecallQuestion:
    """Hold a question and what is right.

    reply: the bundled model's right answer, word for word. value: what any right answer names, None if it was never
    said. values: all that the attribute can have.
    """

    text: str
    reply: str
    value: str | None
    values: tuple[str, ...]

    @property
    def told(self) -> bool:
        """Tell whether the conversation has stated the fact."""
        return self.value is not None

    @property
    def choices(self) -> int:
        """Count the values that a guess can choose from."""
        return len(self.values)


@dataclass(frozen=True)
class RecallProbe:
    """Hold one conversation (OpenAI-shaped messages), what is asked after it, and the texts that state its facts."""

    messages: tuple[Message, ...]
    questions: tuple[RecallQuestion, ...]
    fact_texts: tuple[str, ...]


def recall_probe(
    seed: int,
    *,
    facts: int,
    distance: int,
    updates: bool,
    questions: int,
    never_told: int,
    count_tokens: Callable[[str], int],
) -> RecallProbe:
    """Return a conversation that states `facts` facts, then at least `distance` tokens about other things.

    updates: every fact is stated a second time with another value, which is the one to answer. never_told: questions
    about attributes that were not mentioned. Raises ConfigError for more facts or questions than there are attributes.
    """
    if not 1 <= facts <= len(ATTRIBUTES) - never_told:
        raise ConfigError(f"facts must be between 1 and {len(ATTRIBUTES) - never_told}, got {facts}")
    if distance < 0:
        raise ConfigError(f"distance counts tokens and cannot be negative, got {distance}")
    rng = random.Random(SEED_OFFSET + seed)
    shape = EpisodeOptions(facts, 0, 0, update_share=float(updates), tools_share=0.0, held_out=True)
    history = generate_episode(rng, shape).history
    messages = [turn.message for turn in history]
    texts = tuple(turn.message["content"] for turn in history if turn.message["content"] not in PLAIN_REPLIES)
    far = 0
    while far < distance:
        exchange = noise_segment(rng)
        far += sum(count_tokens(message["content"]) for message in exchange)
        messages += exchange
    values = {item: value for turn in history for item, value in turn.facts}
    told = rng.sample(sorted(values), min(questions, len(values)))
    other = rng.sample([item.names[0] for item in ATTRIBUTES if item.names[0] not in values], never_told)
    asked = [_question(rng, name, values[name]) for name in told] + [_question(rng, name, None) for name in other]
    return RecallProbe(tuple(messages), tuple(asked), texts)


def _question(rng: random.Random, name: str, value: str | None) -> RecallQuestion:
    item = attribute(name)
    return RecallQuestion(question_text(rng, item), answer_text(name, value), value, item.values)
