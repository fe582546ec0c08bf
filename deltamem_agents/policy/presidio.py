"""Redact personal data that Microsoft's Presidio finds."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from backbone import ConfigError
from deltamem_agents.installing import install_extra
from deltamem_agents.policy.decisions import RedactedSpan
from deltamem_agents.policy.rules import Redacting

if TYPE_CHECKING:
    from presidio_analyzer import RecognizerResult

    from deltamem_agents.policy.presidio_engine import Finder

__all__ = ["Presidio"]

# They name nobody, and an agent that loses them forgets when things happened and where they are.
_ONLY_IF_NAMED = frozenset({"DATE_TIME", "URL", "UUID"})


class Presidio(Redacting):
    """Redact personal data found by Presidio, in this process; nothing is downloaded, and texts are sent nowhere.

    entities: Presidio's names of what to find, "EMAIL_ADDRESS" and so on; None is all that it knows in the language but
    DATE_TIME, URL and UUID. language: two or three letters. score: how sure Presidio has to be, from 0 to 1; below 0.6
    it takes many a file name and number for something else. spacy_model: an installed spaCy pipeline, or the folder of
    one, which finds names and places; None finds only what has a pattern. Raises ConfigError when it is made without
    the extra `presidio`, or with an entity, a language or a pipeline that is not there.
    """

    name: ClassVar[str] = "presidio"
    entities: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    language: str = Field(default="en", pattern="^[a-z]{2,3}$")
    score: float = Field(default=0.6, ge=0, le=1)
    spacy_model: str | None = None

    def __init__(self, **options: Any) -> None:
        """Check the options and load Presidio, which takes seconds; a hook would not be given them."""
        super().__init__(**options)
        unknown = sorted(set(self.entities or ()) - self._finder.entities)
        if unknown:
            named = "" if self.spacy_model else "; names and places need a spacy_model"
            raise ConfigError(f"Presidio finds no {unknown}, but {sorted(self._finder.entities)}{named}")

    def spans(self, text: str) -> tuple[RedactedSpan, ...]:
        """Return the personal data in a text; what overlaps is one span."""
        entities = self.entities or self._finder.entities - _ONLY_IF_NAMED
        return _disjoint(self._finder.found(text, sorted(entities), self.score))

    @cached_property
    def _finder(self) -> "Finder":
        try:
            from deltamem_agents.policy.presidio_engine import Finder  # noqa: PLC0415 - loads presidio and spaCy
        except ImportError as error:
            raise ConfigError(f"the policy presidio needs an extra: {install_extra('presidio')} ({error})") from error
        return Finder(self.language, self.spacy_model)


def _disjoint(found: "Sequence[RecognizerResult]") -> tuple[RedactedSpan, ...]:
    groups: list[list[RecognizerResult]] = []
    for one in sorted(found, key=lambda one: one.start):
        if groups and one.start < max(other.end for other in groups[-1]):
            groups[-1].append(one)
        else:
            groups.append([one])
    return tuple(_span(group) for group in groups)


def _span(group: "Sequence[RecognizerResult]") -> RedactedSpan:
    """Join findings that overlap, under the name of the surest, then the longest."""
    surest = max(group, key=lambda one: (one.score, one.end - one.start, one.entity_type))
    kind = surest.entity_type.lower()
    return RedactedSpan(
        kind=kind,
        start=min(one.start for one in group),
        end=max(one.end for one in group),
        placeholder=f"[redacted:{kind}]",
    )
