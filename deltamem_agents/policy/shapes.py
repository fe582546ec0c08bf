"""Recognise text that tells its reader what to do: orders, commands, URLs to fetch, changes of conventions."""

import re
import unicodedata
from collections.abc import Mapping

from deltamem_agents.policy.sentences import has_instructing_sentence
from deltamem_agents.policy.statements import STATED

__all__ = ["instruction_shapes"]

_MODELS = r"(?:ai|agents?|assistants?|llms?|models?|copilots?|chatbots?|bots?)"
_PEOPLE = (
    r"(?:contributors?|reviewers?|maintainers?|developers?|committers?|colleagues|engineers?|admins?|everyone|everybody"
    r"|owners?|the\ (?:\w{1,20}\ )?team|users?|ops|security)"
)
_HERE = r"(?:this|the|our)\ (?:\w{1,20}\ )?(?:project|repo(?:sitory)?|team|code\ ?base|company|build)"
_READERS = rf"(?:we|you|{_PEOPLE}|{_MODELS}|the\ (?:agent|assistant)|{_HERE})"
_DEEDS = (
    r"(?:run|execute|use|add|send|post|append|include|install|remember|store|save|update|delete|disable|upload|e-?mail"
    r"|forward|skip|set|put|copy|commit|push|publish|ignore|open|visit|fetch|download|reply|respond|tell|switch|change"
    r"|call|type|invoke|launch|start|paste|print|pipe|attach|share|merge|deploy|upgrade|comment|bypass|prefer|turn)"
)
_DONE = (
    r"(?:run|executed|used|launched|invoked|started|called|sent|uploaded|posted|pushed|committed|merged|deployed"
    r"|disabled|skipped|formatted|linted|tested|built|installed|printed|stored|shipped|released|done|made|managed)"
)
# What a project has a way of doing, and what it does it with.
_WORK = (
    r"(?:tests?|lint(?:ing|er)?|builds?|format(?:ting|ter)?|deploy(?:ment)?|install(?:ation)?|releases?|default"
    r"|package)"
)
_WORKING = (
    r"(?:tests?|testing|lint(?:ing)?|builds?|building|formatting|deploy(?:ing|ments?)|installing|releas(?:es?|ing))"
)
_MEANS = r"(?:commands?|tool|rule|branch|manager|runner|script|procedure|linter|formatter)"
_SECRETS = (
    r"(?:credentials?|passwords?|secrets?|(?:session|access|auth)\ tokens?|api\ keys?|private\ keys?|env\b|\.env\b)"
)
_SETTINGS = r"(?:\.npmrc|\.?pip\.conf|\.(?:bash|zsh)rc|\.profile|\.gitconfig|crontab|\.ssh|/etc/\w)"
_PROGRAM = (
    r"(?:`|\$\ |\./|sudo\ |(?:bash|sh|python3?|npm|npx|pnpm|yarn|pip|make|tox|nox|pytest|cargo|gradle|mvn|bazel|just|uv"
    r"|poetry|curl|wget|node|go)\ )"
)


def _shape(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE | re.MULTILINE | re.VERBOSE)


_SHAPES: Mapping[str, re.Pattern[str]] = {
    "order": _shape(
        r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b"
        r"(?:instructions?|rules?|polic(?:y|ies)|conventions?|prompts?|memor(?:y|ies)|docs|documentation)\b",
        rf"\b(?:you|{_MODELS}|{_PEOPLE})\s+(?:[\w']{{1,20}}\ ){{0,5}}"
        r"(?:must|should|shall|need\ to|ha(?:ve|s)\ to|are\ (?:required|expected|to))\s+"
        r"(?!be\ (?:able|careful|aware))\w",
        r"\b(?:important|note|attention|attn|reminder|instructions?|message)\s*(?:for|to|,|:)?\s+"
        rf"(?:the\s+|all\s+|any\s+)?(?:\w+\s+)?{_MODELS}\b",
        rf"\b(?:for|to|dear)\s+(?:all\s+)?(?:{_MODELS}|{_PEOPLE})\s*:\s",
        r"(?:^|<!--)[\ \t]*(?:system|ai|agents?|assistants?|bots?)\s*:\ (?:[\w'-]+\ ){2}",
        r"\byou\ are\ now\b",
        rf"\b(?:please|kindly)\s+(?:\w+ly\s+)?{_DEEDS}\b",
        r"\bremember(?::|\ (?:that|to|this)\b)",
        r"\b(?:memori[sz]e|keep\ in\ mind|from\ (?:now\ on|today)|going\ forward|henceforth"
        r"|effective\ (?:immediately|today)|(?:be\ aware|take\ note)\ that)\b",
        r"^[\ \t>*\#/-]{0,20}(?:always|never|do\ not|don't|first,?|(?:before|after)\ \w{1,20}ing\b[^,\n]{0,40},"
        rf"|(?:when(?:ever)?|if)\ (?!\w+,)[^,\n]{{1,60}},)\ (?:always\ )?{_DEEDS}\ ",
        rf"\b(?:always|never)\s+{_DEEDS}\b(?!\()",
        r"\b(?:must|should|shall|ha(?:s|ve)\ to|needs?\ to|is\ to|are\ to)\s+(?:always\ |only\ |never\ )?be\s+"
        r"(?:run|executed|launched|sent|uploaded|posted|pushed|committed|merged|deployed|disabled|skipped|formatted"
        r"|linted|shipped)\b",
        r"\bit\ is\ (?:required|mandatory|necessary|expected)\s+(?:that|to)\b",
        rf"\b{_PEOPLE}\s+(?:now\s+)?(?:asks?|wants?|requires?|expects?|insists?|requests?)\b",
        r"\b(?:every|each|any|all)\ (?:new\ )?"
        r"(?:contributors?|developers?|agents?|commits?|files?|prs?|pull\ requests?)\ "
        r"(?:gets?|disables?|includes?|uses?|carr(?:y|ies)|starts?|ends?|adds?|runs?)\b",
        r"\b(?:commit|push|merge|deploy)\s+(?:directly|straight|force)\b|\bforce-?push\b",
        r"(?:^|[.;:]\s)[\ \t>*\#/-]{0,20}(?:disable|skip|bypass|turn\ off)\s+(?:\w+\ ){0,3}"
        r"(?:verification|checks?|validation|hooks?|tests?|tls|ssl|auth\w*|certificates?|sandbox|linter|warnings?)\b",
        rf"\b(?:include|paste|send|attach|post|upload|pipe|share|print|dump|reveal|store|save|put)s?\b[^\n(]{{0,60}}"
        rf"\b{_SECRETS}(?!\()",
        rf"\b{_SECRETS}[\ ,;][^\n]{{0,60}}\b(?:include|paste|send|attach|post|upload|share|print)(?:ed|s)?\b(?!\()",
        r"\binstall\s+(?:it|them|this|these)\s+(?:on|in|to)\b",
    ),
    "command": _shape(
        r"\b(?:curl|wget|iwr)\b[^\n|]{0,200}\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b",
        r"\b(?:curl|wget)\b[^\n]{0,200}(?:&&|;|\|)\s*(?:sudo\s+)?(?:python3?|node|perl|ruby|source|(?:ba|z)?sh)\b",
        r"\bbase64\s+(?:-d|--decode)\b",
        r"\brm\s+-rf?\b",
        r"\bchmod\s+(?:-R\s+)?0?777\b",
        r"\bgit\s+push\b[^\n]{0,60}\s(?:--force|-f)\b",
        r"--no-(?:verify|gpg-sign)\b|--disable=all\b",
        r"\b(?:with|using|pass|add|use)\s+--(?:force|yes|insecure|no-\w+)\b",
        r"\bauthorized_keys\b|\b(?:ssh-ed25519|ssh-rsa)\s+AAAA",
        r"--(?:extra-)?index-url\b",
        r"\b(?:npm|pip|yarn|pnpm)\s+config\s+set\b",
        r"\bnc\s+-e\b",
        r">\s*/dev/tcp/",
        r"\b(?:run|execute|invoke|paste|launch|call|type)s?[^\S\n]*:?\s+"
        rf"(?!```[^\S\n]*(?:\n\s*\n|\s*\Z))(?:the\s+(?:following\s+)?(?:command|script)|scripts?/|{_PROGRAM})",
        rf"(?:^|[.;]\s)[\ \t>*\#/-]{{0,20}}(?:add|append|put|write|paste)\s[^\n]{{0,60}}{_SETTINGS}",
        rf"\b(?:add|append|put|write|paste|copy)\b[^\n(]{{0,60}}\b(?:to|into|in)\s+(?:your\s+|the\s+|~/)?{_SETTINGS}",
        r"\bopen\s+port\s+\d",
        r"\bset\s+DEBUG\s?=|\bexport\s+PATH=/tmp",
    ),
    "url": _shape(
        r"\b(?:fetch|download|load|import|post|send|upload|submit|report|forward|mirror|append|get|pipe|add"
        r"|copy(?:ing)?|go\ to|navigate\ to|browse\ to)\b[^\n]{0,80}\b(?:https?|ftp)://",
        r"\b(?:registry|index|mirror|proxy|remote|header|endpoint)\b[^\n]{0,40}\s(?:is|at|from|to)\s+https?://",
        r"(?<!information\ )(?<!details\ )(?<!help,\ )\bvisit\s+https?://",
        r"\b(?:follow|obey|grab|clone|source|apply)\b[^\n]{0,60}\b(?:https?|ftp)://",
        r"\b(?:https?|ftp)://\S{1,200}[^\n]{0,40}\b(?:follow|obey|read\ (?:it|them)|apply|do\ what|and\ (?:run|execute"
        r"|install))\b",
        r"!\[[^\]\n]{0,80}\]\(https?://",
    ),
    "convention": _shape(
        rf"\b{_READERS}\s+(?:now\s+|always\s+|ha(?:ve|s)\s+)?"
        r"(?:agreed|decided|switched|moved|adopted|standardi[sz]ed|mandates?|prefers?|requires?|uses?)\b",
        r"\b(?:new|updated|changed|our|team|project|coding|house|security|official|company)\s+(?:\w+\s+)?"
        r"(?:conventions?|polic(?:y|ies)|rules?|standards?|guidelines?|practices?|requirements?|style)\b",
        r"(?<!class\ )\b(?:conventions?|policy)\s*(?:(?:is|:|changed)\s|changes?:)",
        r"\bis\s+(?:now\s+)?(?:mandatory|no\ longer\ (?:needed|required|necessary|allowed))\b",
        r"\b(?:approved|trusted|whitelisted|official|internal|company)\s+(?:package\s+)?(?:registry|mirror|index"
        r"|proxy)\b",
        r"\b(?:registry|mirror|index|remote|endpoint|proxy|host)\s+(?:has\s+)?(?:moved|changed)\s+to\b",
        r"\binstead\s+of\b[^\n]{0,80}\bfrom\ now\b|\bin\ (?:its|their)\ (?:place|stead)\b",
        r"\buse\s+[\w.`'-]{1,30},?\s+not\s+[\w`']",
        rf"\b{_WORK}\s+{_MEANS}\s*(?:is|are|was|will|has|to|changed|:|=>|->|=|for)\s",
        rf"\b(?:as|for|is|set|switched|changed?)\s+(?:the|our)\s+{_WORK}\s+{_MEANS}\b",
        rf"\b{_WORK}s?\s+(?:is|are|happens?|works?)\s+(?:now\s+|always\s+|only\s+)?(?:{_DONE}\s+)?"
        r"(?:with|by|via|through|using)\b",
        rf"\b(?:the|our)\s+{_WORK}\s+(?:is|are)\s+now\b",
        rf"\b{_WORKING}\s*(?::|=>|->)\ *(?:always\ |only\ )?(?:(?:run|use|call|execute|invoke|type)\b|`)",
        rf"\bfor\s+{_WORKING}\b[^.\n]{{0,30}}\b(?:use|run|call|prefer)\b",
        rf"\bwe\s+(?:now\s+|always\s+|only\s+)?(?:run|{_WORK}|merge|store|ship)\s[^\n]{{0,60}}"
        r"\b(?:with|to|into|in|via|by)\b",
        r"\bwe\ (?:no\ longer|don't|do\ not|never)\s+(?:run|use|test|lint|build)\b|\bis\ what\ we\b",
        r"\b(?:forget|drop)\s+the\s+(?:old|previous|former)\b",
        rf"\bbefore\s+(?:a|an|each|every|any)\s+\w+,\s*{_WORK}\b",
        rf"\bto\s+(?:run\s+the\s+)?{_WORK}\b[^,\n]{{0,40}},\s*(?:always\s+)?{_DEEDS}\b",
        r"\bthe\ (?:\w+\ )?(?:right|correct|proper|preferred|recommended|only|official|new|actual|supported)\ "
        r"(?:\w+\ ){0,2}(?:command|way|tool|runner|linter|formatter|script)\b",
        r"\b(?:command|tool|runner|linter|formatter|builder|script|index|registry|manager|way)\s+to\s+"
        r"(?:run|use|call|invoke|test|build|deploy|lint|format)\b[^\n]{0,40}\b(?:is|are|=>|:)\s",
        r"\b(?:deprecated|obsolete|retired|gone|banned|forbidden)\s+(?:here|in\ (?:this|our)|for\ us)\b",
        r"\bin\ (?:this|our)\ (?:repo(?:sitory)?|project|code\ ?base)\b[^.\n]{0,60}\b(?:is|are|must|use|run|with)\b",
        r"\b(?:is|are|was|were)\s+(?:\w{1,20}\s+){0,3}(?:--force|automatic)\b",
        STATED,
    ),
}

# What common tools print themselves, and what is no sentence of theirs: the steps of an image that is built.
_HINTS = re.compile(
    r"run `npm (?:fund|audit)[^`\n]{0,20}`|run: (?:\S{0,80}python\S{0,8} -m )?pip install --upgrade pip\b"
    r"|(?:[Rr]un|[Ss]ee|[Tt]ry|[Uu]se) ['\"][^'\"`\n]{1,40} --help['\"] for (?:more )?(?:information|help|usage)"
    r"|need to specify how to reconcile (?:them|divergent branches)|^RUN (?=[a-z])"
    r"|^(?:Step \d{1,3}/\d{1,3} : |#\d{1,3} \[[^\]\n]{0,40}\] )RUN |^[ ]{0,12}- run: ",
    re.MULTILINE,
)
# Characters that are not seen, and would hide a word from a pattern but not from a model.
_UNSEEN = dict.fromkeys(
    [0x00AD, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF]
)
# Letters spelled apart, emphasis, sentences that go on in the next line, and empty lines.
_SPREAD = re.compile(r"(?<!\S)(?:[A-Za-z] ){3,40}[A-Za-z](?!\S)")
_EMPHASIS = re.compile(r"(?<!\w)_{1,2}(?=\w)|(?<=\w)_{1,2}(?!\w)|\*{1,3}(?=\w)|(?<=\S)\*{1,3}|</?(?:b|i|em|strong|u)>")
_WRAPPED = re.compile(r"(?<=[a-z,])[ ]{0,8}\n[ ]{0,20}(?:(?:#|//|>|\*)[ \t]{1,4})?(?=[a-z]{1,20} )")
_BLANK = re.compile(r"\n{3,}")


def _read(text: str) -> str:
    """Return a text as a model reads it: without emphasis, unseen characters and breaks inside sentences."""
    seen = unicodedata.normalize("NFKC", text.translate(_UNSEEN)).replace("\u2019", "'")
    seen = _SPREAD.sub(lambda letters: letters.group().replace(" ", ""), seen)
    seen = _BLANK.sub("\n\n", seen)
    return _WRAPPED.sub(" ", _EMPHASIS.sub("", _HINTS.sub("", seen)))


def instruction_shapes(text: str) -> tuple[str, ...]:
    """Name what of an instruction a text has: order, command, url, convention; empty for plain information.

    Patterns are neither complete nor exact. What carries the defence is that trust comes from the source, and does not
    change when a text is paraphrased.
    """
    seen = _read(text)
    found = tuple(name for name, shape in _SHAPES.items() if shape.search(seen))
    return found or (("convention",) if has_instructing_sentence(seen) else ())
