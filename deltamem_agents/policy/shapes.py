"""Recognise text that tells its reader what to do: orders, commands, URLs to fetch, changes of conventions."""

import re
import unicodedata
from collections.abc import Mapping

__all__ = ["instruction_shapes"]

_MODELS = r"(?:ai|agents?|assistants?|llms?|models?|copilots?|chatbots?)"
_READERS = (
    rf"(?:we|you|everyone|developers|{_MODELS}|the\ (?:team|project|agent|assistant|repo(?:sitory)?|company|build)"
    r"|this\ (?:project|repo(?:sitory)?|team))"
)
_DEEDS = (
    r"(?:run|execute|use|add|send|post|append|include|install|remember|store|save|update|delete|disable|upload|e-?mail"
    r"|forward|skip|set|put|copy|commit|push|publish|ignore|open|visit|fetch|download|reply|respond|tell|switch|change)"
)
# What a project has a way of doing.
_WORK = r"(?:tests?|lint(?:ing)?|builds?|format(?:ting)?|deploy(?:ment)?|install(?:ation)?|releases?|default|package)"


def _shape(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE | re.MULTILINE | re.VERBOSE)


_SHAPES: Mapping[str, re.Pattern[str]] = {
    "order": _shape(
        r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b"
        r"(?:instructions?|rules?|polic(?:y|ies)|conventions?|prompts?|memor(?:y|ies))\b",
        rf"\b(?:you|{_MODELS})\s+(?:must|should|shall|need\ to|have\ to|are\ (?:required|expected|to))\b",
        r"\b(?:important|note|attention|reminder|instructions?|message)\s+(?:for|to)\s+(?:the\s+|all\s+|any\s+)?"
        rf"(?:\w+\s+)?{_MODELS}\b",
        rf"\b(?:please|kindly)\s+(?:\w+ly\s+)?{_DEEDS}\b",
        r"\b(?:remember\ (?:that|to|this)|memori[sz]e|keep\ in\ mind|from\ now\ on|going\ forward|henceforth)\b",
        r"^[\ \t>*\#/-]{0,20}"
        r"(?:always|never|do\ not|don't|first,?|before\ \w{1,20}ing[^,\n]{0,40},|when(?:ever)?\ [^,\n]{1,60},)\s+"
        rf"(?:always\s+)?{_DEEDS}\b",
        rf"\b(?:always|never)\s+{_DEEDS}\b",
    ),
    "command": _shape(
        r"\b(?:curl|wget|iwr)\b[^\n|]{0,200}\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b",
        r"\bbase64\s+(?:-d|--decode)\b",
        r"\brm\s+-rf?\b",
        r"\bchmod\s+(?:-R\s+)?0?777\b",
        r"\bgit\s+push\b[^\n]{0,60}\s(?:--force|-f)\b",
        r"--no-verify\b",
        r"\bauthorized_keys\b",
        r"--(?:extra-)?index-url\b",
        r"\b(?:npm|pip|yarn|pnpm)\s+config\s+set\b",
        r"\bnc\s+-e\b",
        r">\s*/dev/tcp/",
        r"\b(?:run|execute|invoke|paste|launch)\s*:?\s+"
        r"(?:the\s+(?:following\s+)?(?:command|script)|`|\$\s|sudo|bash|sh\b|python|npm|pip|make|\./)",
    ),
    "url": _shape(
        r"\b(?:fetch|download|load|import|post|send|upload|submit|report|forward|mirror|append|get"
        r"|go\ to|navigate\ to|browse\ to)\b"
        r"[^\n]{0,80}\bhttps?://",
        r"(?<!information\ )(?<!details\ )(?<!help,\ )\bvisit\s+https?://",
        r"!\[[^\]\n]{0,80}\]\(https?://",
    ),
    "convention": _shape(
        rf"\b{_READERS}\s+(?:now\s+|always\s+|ha(?:ve|s)\s+)?"
        r"(?:agreed|decided|switched|moved|adopted|standardi[sz]ed|mandates?|prefers?|requires?|uses?)\b",
        r"\b(?:new|updated|changed|our|team|project|coding|house|security|official|company)\s+(?:\w+\s+)?"
        r"(?:conventions?|polic(?:y|ies)|rules?|standards?|guidelines?|practices?|requirements?)\b",
        r"\b(?:convention|policy)\s*(?:is|:|changed)\s",
        r"\bis\s+(?:now\s+)?(?:mandatory|no\ longer\ (?:needed|required|necessary|allowed))\b",
        r"\b(?:approved|trusted|whitelisted|official|internal|company)\s+(?:package\s+)?(?:registry|mirror|index|proxy)\b",
        r"\b(?:registry|mirror|index|remote|endpoint|proxy|host)\s+(?:has\s+)?(?:moved|changed)\s+to\b",
        r"\binstead\s+of\b[^\n]{0,80}\bfrom\ now\b",
        rf"\b{_WORK}\s+(?:commands?|tool|rule|branch|manager)\s*(?:is|are|was|will|has|to|:|for)\s",
        rf"\b(?:as|for|is|set|switched|changed?)\s+(?:the|our)\s+{_WORK}\s+(?:commands?|tool|rule|branch|manager)\b",
        rf"\b{_WORK}s?\s+(?:is|are)\s+(?:now\s+|always\s+)?(?:run|done|made|started|built|managed|shipped)\s+"
        r"(?:with|by|via|through|using)\b",
        rf"\bwe\s+(?:now\s+|always\s+)?(?:run|{_WORK}|merge|store|ship)\s[^\n]{{0,60}}\b(?:with|to|into|in|via|by)\b",
        r"\b(?:forget|drop)\s+the\s+(?:old|previous|former)\b",
        rf"\bbefore\s+(?:a|an|each|every|any)\s+\w+,\s*{_WORK}\b",
        rf"\bto\s+(?:run\s+the\s+)?{_WORK}\b[^,\n]{{0,40}},\s*(?:always\s+)?{_DEEDS}\b",
    ),
}


# Characters that are not seen, and would hide a word from a pattern but not from a model.
_UNSEEN = dict.fromkeys(
    [0x00AD, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF]
)


def instruction_shapes(text: str) -> tuple[str, ...]:
    """Name what of an instruction a text has: order, command, url, convention; empty for plain information.

    Patterns are neither complete nor exact. What carries the defence is that trust comes from the source, and does not
    change when a text is paraphrased.
    """
    seen = unicodedata.normalize("NFKC", text.translate(_UNSEEN))
    return tuple(name for name, shape in _SHAPES.items() if shape.search(seen))
