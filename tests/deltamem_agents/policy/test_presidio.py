"""Personal data found by Presidio itself: its recognisers, spaCy, and no network."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import spacy
from pydantic import ValidationError

from backbone import ConfigError
from deltamem_agents.policy import PolicyChain, PolicyMessage, Presidio, RedactedSpan, load_policy
from deltamem_agents.policy.decisions import redacted
from tests.deltamem_agents.policy.test_rules import Stored


@pytest.fixture(scope="module")
def patterns() -> Presidio:
    """The rule as it is without options."""
    return Presidio()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spaCy pipeline on disk that knows two people, a city, and the beginning of a sentence."""
    nlp = spacy.blank("en")
    ruler: Any = nlp.add_pipe("entity_ruler")
    ruler.add_patterns(
        [
            {"label": "PERSON", "pattern": "Ana Silva"},
            {"label": "GPE", "pattern": "Lisbon"},
            {"label": "PERSON", "pattern": [{"LOWER": "phone"}, {"LOWER": "+49"}]},
            {"label": "CARDINAL", "pattern": "seven"},
        ]
    )
    folder = tmp_path_factory.mktemp("spacy") / "names"
    nlp.to_disk(folder)
    return folder


def after(rule: Presidio, text: str) -> str:
    return redacted(text, rule.spans(text))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to ana.silva@example.co.uk.", "write to [redacted:email_address]."),
        ("my phone is 212-555-0187", "my phone is [redacted:phone_number]"),
        ("telephone: +49 30 1234567", "telephone: [redacted:phone_number]"),
        ("card 4111 1111 1111 1111", "card [redacted:credit_card]"),
        ("IBAN DE89 3704 0044 0532 0130 00", "IBAN [redacted:iban_code]"),
        ("her SSN is 536-22-8726", "her SSN is [redacted:us_ssn]"),
        ("pay 1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "pay [redacted:crypto]"),
        ("from 10.0.0.7 or 2001:db8::8a2e:370:7334", "from [redacted:ip_address] or [redacted:ip_address]"),
        ("00:1B:44:11:3A:B7", "[redacted:mac_address]"),
    ],
)
def test_what_has_a_pattern_is_redacted(patterns: Presidio, text: str, left: str) -> None:
    """Presidio's recognisers work without a language model, and their words of context count."""
    assert after(patterns, text) == left
    assert after(patterns, left) == left, "a placeholder is no finding"


@pytest.mark.parametrize(
    "text",
    [
        "README.md and setup.py are in src/app.py; self.work.it",
        "on 2026-11-21 at 10:00, see https://example.com/x?y=1",
        "job 123e4567-e89b-12d3-a456-426614174000 took 1234567890 ns",
        "card 4111 1111 1111 1112 fails its checksum",
        "pip install thing@1.2.3 and x@y",
        "",
    ],
)
def test_what_names_nobody_stays(patterns: Presidio, text: str) -> None:
    """Files, dates, addresses of pages, ids and numbers stay unless they are asked for."""
    assert patterns.spans(text) == ()


def test_a_policy_file_redacts_at_every_hook(tmp_path: Path) -> None:
    """What is kept, asked and shown is redacted, from the first text on within the second that a chain gives."""
    path = tmp_path / "policy.toml"
    path.write_text('[[policy]]\nuse = "presidio"\nentities = ["EMAIL_ADDRESS"]', encoding="utf-8")
    chain = load_policy(path)
    kept = chain.retain(PolicyMessage("ask ana@example.com"))
    assert (kept.text, kept.archive, kept.reason) == ("ask [redacted:email_address]", True, "email_address")
    assert chain.retrieve("who is ana@example.com?").query == "who is [redacted:email_address]?"
    shown = chain.present(Stored(text="ask ana@example.com"))
    assert (shown.action, shown.text) == ("mask", "ask [redacted:email_address]")
    assert chain.present(Stored(text="ask me")).action == "show"


def test_entities_say_what_is_looked_for() -> None:
    """Named entities are found and no others; what is left out unless it is named can be named."""
    said = "2026-11-21, ana@example.com, https://example.com/x"
    assert after(Presidio(entities=("EMAIL_ADDRESS",)), said) == said.replace(
        "ana@example.com", "[redacted:email_address]"
    )
    named = Presidio(entities=("DATE_TIME", "URL"))
    assert after(named, said) == "[redacted:date_time], ana@example.com, [redacted:url]"


def test_the_score_says_how_sure_presidio_has_to_be(patterns: Presidio) -> None:
    """A number without a word that says what it is passes at the default, and not at a lower score."""
    said = "212-555-0187 for details"
    assert after(patterns, said) == said
    assert after(Presidio(score=0.4), said) == "[redacted:phone_number] for details"


def test_the_language_chooses_recognisers(patterns: Presidio) -> None:
    """A Spanish tax number is found in Spanish."""
    said = "mi NIF es 12345678Z"
    assert after(patterns, said) == said
    assert after(Presidio(language="es"), said) == "mi NIF es [redacted:es_nif]"


def test_a_spacy_pipeline_finds_names_and_places(patterns: Presidio, pipeline: Path) -> None:
    """Without one names stay; labels that Presidio has no entity for stay in both cases."""
    said = "Ana Silva moved to Lisbon with seven cats"
    assert after(patterns, said) == said
    names = Presidio(spacy_model=str(pipeline))
    assert after(names, said) == "[redacted:person] moved to [redacted:location] with seven cats"
    assert after(Presidio(spacy_model=str(pipeline), entities=("LOCATION",)), said) == (
        "Ana Silva moved to [redacted:location] with seven cats"
    )


def test_words_count_beside_a_pipeline_without_lemmas(pipeline: Path) -> None:
    """A pipeline that only finds names does not take their context from the numbers."""
    assert (
        after(Presidio(spacy_model=str(pipeline)), "my phone is 212-555-0187") == "my phone is [redacted:phone_number]"
    )


def test_findings_that_overlap_become_one(pipeline: Path) -> None:
    """Within or across: one span over both, named after the surest."""
    within = Presidio(entities=("EMAIL_ADDRESS", "URL"), score=0.5).spans("to ana@example.com")
    assert within == (RedactedSpan(kind="email_address", start=3, end=18, placeholder="[redacted:email_address]"),)
    across = Presidio(spacy_model=str(pipeline)).spans("phone +49 30 1234567, or 10.0.0.7")
    assert [(span.kind, span.start, span.end) for span in across] == [("person", 0, 20), ("ip_address", 25, 33)]


def test_positions_hold_beside_what_no_utf8_has(patterns: Presidio) -> None:
    """A text with half a surrogate pair, or with signs of four bytes, is redacted in the right place."""
    assert after(patterns, "\ud800 😀 ana@example.com é") == "\ud800 😀 [redacted:email_address] é"


def test_threads_share_a_rule(patterns: Presidio) -> None:
    """Eight threads get the answers that one gets."""
    texts = [f"mail user{number}@example.com from 10.0.0.{number} about café{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(patterns.spans, texts))
    assert together == [patterns.spans(text) for text in texts]
    assert {len(spans) for spans in together} == {2}


def test_making_the_rule_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A program that logs warnings does not read of recognisers that it never asked for."""
    Presidio(language="de")
    assert [record for record in caplog.records if record.name == "presidio-analyzer"] == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"entities": ("PERSON",)}, r"\['PERSON'\].*names and places need a spacy_model"),
        ({"entities": ("email",)}, r"\['email'\].*'EMAIL_ADDRESS'"),
        ({"language": "zz"}, "cannot read the language 'zz'"),
        ({"spacy_model": "en_core_web_lg_not_here"}, "nothing is downloaded"),
        ({"spacy_model": str(Path(__file__).parent)}, "cannot be loaded"),
    ],
)
def test_what_is_not_there_is_an_error_when_the_rule_is_made(options: dict[str, Any], told: str) -> None:
    """Unknown entities, languages and pipelines are named before a first message could get lost."""
    with pytest.raises(ConfigError, match=told):
        Presidio(**options)


def test_a_pipeline_of_another_language_is_refused(pipeline: Path) -> None:
    """German recognisers would get English words."""
    with pytest.raises(ConfigError, match="is for 'en', not for 'de'"):
        Presidio(spacy_model=str(pipeline), language="de")


@pytest.mark.parametrize("options", [{"entities": ()}, {"score": 1.1}, {"language": "English"}, {"model": "x"}])
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    """A rule's options are checked before anything is loaded."""
    with pytest.raises(ValidationError):
        Presidio(**options)


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a program and from a file alike; other policies work without it."""
    monkeypatch.delitem(sys.modules, "deltamem_agents.policy.presidio_engine", raising=False)
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    path = tmp_path / "policy.yaml"
    path.write_text("policy: [{use: presidio}]", encoding="utf-8")
    for make in (Presidio, lambda: load_policy(path)):
        with pytest.raises(ConfigError, match=r"\[presidio\]"):
            make()
    path.write_text("policy: [{use: secrets}]", encoding="utf-8")
    assert isinstance(load_policy(path), PolicyChain)
