"""Find secrets in text and put placeholders in their place, in time that is linear in the text."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deltamem_agents.policy.contexts import credentials, keyed_values, named_kind
from deltamem_agents.policy.patterns import TOKEN_RULES

__all__ = ["Finding", "Redaction", "redact_named", "redact_secrets"]

# Stands for a character that has been redacted; no pattern matches it, and Unicode assigns it to nothing.
_GONE = "\ufdd0"
_PLACEHOLDER = re.compile(r"\[redacted:[a-z0-9-]{1,40}(?::[0-9a-f]{8})?\]")
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
# Colours and the like in a terminal's output; with the lookahead, no placeholder that follows a lone escape.
_CONTROL = re.compile(r"\x1b\[(?!redacted:)[0-9;?]{0,40}[A-Za-z]")
_KEY_BEGIN, _KEY_END = "-----BEGIN ", "-----END"
_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_LINES = re.compile(
    r"(?:(?:\s|\\[nr]){0,4}+[A-Za-z0-9+/=]{16,256}+){0,600}+(?:(?:\s|\\[nr]){0,4}+[A-Za-z0-9+/=]{1,15}(?=\s|\\|$))?"
)
_MAX_KEY_BLOCK = 32_768
_MAX_PASSES = 8
# What is short, or was chosen by a person, could be found by trying; its placeholder carries no digest unless keyed.
_GUESSABLE_BELOW = 20
_CHOSEN = frozenset({"password", "url-password", "connection-string"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Say what was found: its kind, its half-open span in the given text, and what stands there now."""

    kind: str
    span: tuple[int, int]
    placeholder: str


@dataclass(frozen=True, slots=True)
class Redaction:
    """Hold a text without its secrets, and what was found, in order."""

    text: str
    findings: tuple[Finding, ...]


def redact_secrets(text: str, *, key: bytes | None = None) -> Redaction:
    """Replace each secret in a text by a placeholder such as [redacted:github-token:1a2b3c4d].

    The same secret gets the same placeholder, in every process. Its last part is a digest of the secret. Without a key
    only secrets that cannot be guessed have it: long ones, and no passwords. With a key (1 to 64 bytes) all have it,
    and other keys give other digests. What was redacted is left alone when it is redacted again. Raises TypeError for
    anything but text.
    """
    if not isinstance(text, str):
        raise TypeError(f"redact_secrets takes a str, got {type(text).__name__}")
    found: list[tuple[int, int, str]] = []
    shown, places = _shown(text)
    masked = _PLACEHOLDER.sub(lambda match: _GONE * len(match.group()), shown)
    # One secret can hide the context of another, so what was found is blanked and the rest read again.
    for _ in range(_MAX_PASSES):
        spans = _merged(_scan(masked))
        if not spans:
            break
        found += spans
        masked = _blanked(masked, spans)
    there = [(places[start], places[end - 1] + 1, kind, shown[start:end]) for start, end, kind in sorted(found)]
    return _replaced(text, there, key)


def redact_named(name: str, value: str, *, key: bytes | None = None) -> str:
    """Redact a value that stands under a name in a mapping, as in {"password": …}; the name itself stays."""
    redaction = redact_secrets(value, key=key)
    if redaction.findings or _PLACEHOLDER.search(value):
        return redaction.text
    kind = named_kind(name, value)
    return value if kind is None else _placeholder(kind, value, key)


def _shown(text: str) -> tuple[str, Sequence[int]]:
    """Return what a terminal shows of a text, and where each character of that stands."""
    if "\x1b[" not in text:
        return text, range(len(text))
    places: list[int] = []
    at = 0
    for control in _CONTROL.finditer(text):
        places += range(at, control.start())
        at = control.end()
    places += range(at, len(text))
    return _CONTROL.sub("", text), places


def _scan(text: str) -> Iterator[tuple[int, int, str]]:
    lowered = text.lower()
    if len(lowered) != len(text):  # one letter of Turkish becomes two
        lowered = text.translate(_ASCII_LOWER)
    yield from _private_keys(text)
    for rule in TOKEN_RULES:
        for literal in rule.literals:
            if literal in text:  # most texts hold none, so this is most of what a short text costs
                yield from ((start, end, rule.kind) for start, end in rule.find(text, literal))
    yield from keyed_values(text, lowered)
    yield from credentials(text, lowered)


def _private_keys(text: str) -> Iterator[tuple[int, int, str]]:
    at = text.find(_KEY_BEGIN)
    closing = 0
    while at >= 0:
        begin = _KEY_BLOCK.match(text, at)
        end = at + len(_KEY_BEGIN)
        if begin is not None:
            if 0 <= closing < begin.end():
                closing = text.find(_KEY_END, begin.end())
            lines = _KEY_LINES.match(text, begin.end())
            end = begin.end() if lines is None else lines.end()
            if 0 <= closing <= begin.end() + _MAX_KEY_BLOCK:
                end = max(end, text.find("-----", closing + len(_KEY_END), closing + 80) + 5)
            yield at, end, "private-key"
        at = text.find(_KEY_BEGIN, end)


def _merged(spans: Iterator[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Join overlapping spans; the first rule that named a span's start names the whole."""
    merged: list[tuple[int, int, str]] = []
    for start, end, kind in sorted(spans, key=lambda span: span[0]):
        if merged and start < merged[-1][1]:
            first, last, name = merged[-1]
            merged[-1] = (first, max(last, end), name)
        elif start < end:
            merged.append((start, end, kind))
    return merged


def _blanked(text: str, spans: list[tuple[int, int, str]]) -> str:
    parts: list[str] = []
    at = 0
    for start, end, _ in spans:
        parts += (text[at:start], _GONE * (end - start))
        at = end
    return "".join((*parts, text[at:]))


def _replaced(text: str, secrets: list[tuple[int, int, str, str]], key: bytes | None) -> Redaction:
    parts: list[str] = []
    findings: list[Finding] = []
    at = 0
    for start, end, kind, secret in secrets:
        placeholder = _placeholder(kind, secret, key)
        findings.append(Finding(kind, (start, end), placeholder))
        parts += (text[at:start], placeholder)
        at = end
    return Redaction("".join((*parts, text[at:])), tuple(findings))


def _placeholder(kind: str, secret: str, key: bytes | None) -> str:
    if key is None and (len(secret) < _GUESSABLE_BELOW or kind in _CHOSEN):
        return f"[redacted:{kind}]"
    digest = hashlib.blake2b(secret.encode("utf-8", "surrogatepass"), digest_size=4, key=key or b"", person=b"deltamem")
    return f"[redacted:{kind}:{digest.hexdigest()}]"
