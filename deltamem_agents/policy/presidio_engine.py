"""Make Presidio's analyser so that nothing is ever downloaded; imported by those who use the rule."""

import re
from pathlib import Path
from threading import Lock

import spacy
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, RecognizerResult
from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpEngineProvider, SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import EmailRecognizer
from presidio_analyzer.recognizer_registry import RecognizerRegistryProvider
from spacy.language import Language
from spacy.tokens import Doc
from tldextract import TLDExtract

from backbone import ConfigError

__all__ = ["Finder"]

_WORDS = "deltamem_words"
# Those that Presidio has recognisers for: it logs a warning for each recogniser whose language is not asked for.
_LANGUAGES = ("en", "es", "it", "pl")
# What no UTF-8 can hold, and spaCy refuses; a replacement of the same length keeps every position.
_SURROGATE = re.compile("[\ud800-\udfff]")
_WARM_UP = "call +1 212 555 0187 or write to ana@example.com"


class Finder:
    """Find personal data in texts; threads take turns, for spaCy does not promise that they may do otherwise."""

    def __init__(self, language: str, spacy_model: str | None) -> None:
        """Load the recognisers, and the pipeline if one is named.

        Raises ConfigError for a language that spaCy does not know, and for a pipeline that cannot be used.
        """
        nlp = SpacyNlpEngine(ner_model_configuration=_labels())
        nlp.nlp = {language: _pipeline(language, spacy_model)}  # type: ignore[assignment] # declared as None
        registry = _registry(language)
        if spacy_model is not None:
            registry.add_nlp_recognizer(nlp)
        self._engine = AnalyzerEngine(registry=registry, nlp_engine=nlp, supported_languages=[language])
        self._language = language
        self._lock = Lock()
        self.entities = frozenset(self._engine.get_supported_entities(language))
        # Patterns and tables are read at the first text: half a second that a hook, whose time is short, must not pay.
        self.found(_WARM_UP, sorted(self.entities), 0.0)

    def found(self, text: str, entities: list[str], score: float) -> list[RecognizerResult]:
        """Return what is found of these entities with at least this score; findings may overlap."""
        with self._lock:
            return self._engine.analyze(_SURROGATE.sub("\ufffd", text), self._language, entities, score_threshold=score)


class _OfflineEmail(EmailRecognizer):
    """Check the ends of addresses against the list that tldextract ships; Presidio's own would fetch the newest."""

    def __init__(self, language: str) -> None:
        super().__init__(supported_language=language)
        self._split = TLDExtract(cache_dir=None, suffix_list_urls=())

    def validate_result(self, pattern_text: str) -> bool:
        return self._split(pattern_text).fqdn != ""


@Language.component(_WORDS)
def _words(doc: Doc) -> Doc:
    """Let words stand for lemmas where a pipeline has none: Presidio looks for "phone" before a number among them."""
    if not doc.has_annotation("LEMMA"):
        for token in doc:
            token.lemma_ = token.lower_
    return doc


def _registry(language: str) -> RecognizerRegistry:
    languages = sorted({language, *_LANGUAGES})
    every = RecognizerRegistryProvider(registry_configuration={"supported_languages": languages})
    made = every.create_recognizer_registry()
    kept = [one for one in made.recognizers if one.supported_language == language]
    kept = [_OfflineEmail(language) if isinstance(one, EmailRecognizer) else one for one in kept]
    return RecognizerRegistry(kept, made.global_regex_flags, [language])


def _labels() -> NerModelConfiguration:
    """Return how Presidio reads the labels of spaCy's own pipelines, and which of them it leaves out as unreliable."""
    return NerModelConfiguration.from_dict(NlpEngineProvider().nlp_configuration["ner_model_configuration"])


def _pipeline(language: str, spacy_model: str | None) -> Language:
    nlp = _blank(language) if spacy_model is None else _installed(spacy_model)
    if nlp.lang not in {language, "xx"}:
        raise ConfigError(f"the spaCy pipeline {spacy_model!r} is for {nlp.lang!r}, not for {language!r}")
    nlp.add_pipe(_WORDS, last=True)
    return nlp


def _blank(language: str) -> Language:
    try:
        return spacy.blank(language)
    except ImportError as error:
        raise ConfigError(f"spaCy cannot read the language {language!r}: {error}") from error


def _installed(spacy_model: str) -> Language:
    # Not SpacyNlpEngine.load, which downloads what is not there.
    if not (spacy.util.is_package(spacy_model) or Path(spacy_model).is_dir()):
        raise ConfigError(
            f"{spacy_model!r} is neither an installed spaCy pipeline nor the folder of one; nothing is downloaded"
        )
    try:
        return spacy.load(spacy_model)
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(f"the spaCy pipeline {spacy_model!r} cannot be loaded: {error}") from error
