"""Recognise sentences that set how things are done: cues that make an instruction only together.

A verb in the imperative, a program, an activity of a project, and words such as "every" or "from now on" are each
common in what tools print; an instruction has several of them in one sentence.
"""

import re
from collections.abc import Iterator

from deltamem_agents.policy.shape_words import ACTIVITY, COMMAND, DATA, DEEDS, GUARD, HOST, MARK, PEOPLE, START, TOOLS

__all__ = ["has_instructing_sentence"]

_LONGEST = 400
_EVERY = (
    r"\b(?:every|each|any|all)\ (?:(?:of\ )?(?:the|our|your)\ )?(?:\w{1,15}\ )?"
    r"(?:commits?|prs?|pull\ requests?|requests?|quer(?:y|ies)|reports?|edits?|changes?|tasks?|sessions?|answers?"
    r"|repl(?:y|ies)|responses?|runs?|releases?|builds?|branch(?:es)?|push(?:es)?|merges?|figures?|dashboards?"
    r"|analys[ei]s|charts?|deploy(?:s|ments?)?|tools?|projects?|repos?|tests?|messages?|conversations?)\b"
)


def _cue(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE | re.VERBOSE)


_CUES = {
    "imperative": _cue(
        rf"{START}(?!(?:test|build|type|name|check|format|release|branch)\ (?:cases?|status|suite|file|name|data|if"
        rf"|whether|that|and"
        rf"|check\w*|hint|script|has|should|does|only|with\ \w+\ that)|default\ to|work\ |use\ of|comments?\ (?:on"
        rf"|from)|merge\ conflict|query\ (?:plan|string|param)|set\ of|update\ (?:on|of)){DEEDS}"
        r"(?![\w(=:./-]|'[a-z]|\ (?:=|is|are|was|has|does|of)\b)"
    ),
    "advice": _cue(r"\b(?:recommend|suggest|advise|require|prefer|start|stop|avoid|try)s?\ (?:\w+ing)\b"),
    "obliged": _cue(
        r"\b(?:must|shall|should|ought\ to|ha(?:s|ve)\ to|needs?\ to|(?:is|are)\ to\ be|supposed\ to|required\ to"
        r"|expected\ to)\b"
    ),
    "activity": _cue(ACTIVITY),
    "command": _cue(COMMAND),
    "standing": _cue(
        _EVERY,
        r"\b(?:always|never|only|nowadays|henceforth|any\ ?more|any\ longer|no\ longer|instead|rather\ than|preferred"
        r"|official(?:ly)?|without\ exception|at\ all\ times|exclusively|nothing\ else|anything\ else|anyway|yourself"
        r"|by\ hand)\b|\bfirst[.!]?$",
        r"\bunless\ (?:told|asked|instructed)\b|,\ (?:and\ )?(?:not|never)\ (?:with|from|by|via|using|through|to|the"
        r"|off|on|in)\b",
        r"\b(?:from|starting|as\ of|since)\ (?:now|today|tomorrow|(?:this|next)\ \w+|monday|friday)\b",
        r"\b(?:in|for|of|on|across)\ (?:this|our)\ (?:\w{1,15}\ )?(?:repo\w{0,6}|project|code\ ?base|team|workspace"
        r"|company|organi[sz]ation|package|network|cluster|monorepo)\b",
        r"\b(?:as\ )?per\ (?:the|our|team)\b|\baccording\ to\ (?:the|our)\ (?:wiki|team|handbook|polic|guide|docs"
        r"|lead)",
        r"(?<!\w\ from\ )(?<!\ see\ )\bhere[.!]?$",
        r"\b(?:in\ (?:favou?r|place|lieu)\ of|over\ to|agreed|decided|approved\ by|mandat(?:ed|ory))\b",
        r"\b(?:prior\ to|before|after)\ (?:(?:every|each|any|you)\ |(?:commit|push|merg|finish|deploy|releas"
        r"|edit)\w*\b)",
        r"\bwhen(?:ever)?\ (?:you|done|finished|asked|in\ doubt|deploying|committing)\b",
    ),
    "clause": _cue(
        rf"[,;:—–]\ (?:so|just|then|please|always)?\ ?{DEEDS}\ (?:it|them|anyway|key|only"
        rf"|{COMMAND}|[\w.]{{0,20}}_\w|\w+[.!]?$)"
    ),
    "occasion": _cue(
        r"\b(?:before|after|when(?:ever)?|once|each\ time|every\ time|as\ soon\ as)\ (?:you(?:'re|\ have|\ are)?"
        r"\ (?:answer|reply"
        r"|respond|finish|commit|push|done|start|open|edit|deploy|write|comput|calculat|report|review|asked|merg)\w*"
        r"|answering|replying|finishing|responding)|\b(?:before|after|on)\ (?:every|each)\ \w"
    ),
    "style": _cue(
        r"\b(?:tabs?|spaces|indentation|camel[\ _]?case|snake[\ _]?case|docstrings?|comments|annotations|type"
        r"\ (?:hints|comments)"
        r"|line\ length|commit\ messages?|semicolons|trailers?|spelling|(?:python|java|node)\ \d|english|french|spanish"
        r"|german|chinese|(?:single|double)\ quotes|lowercase|uppercase|header)\b"
    ),
    "styling": _cue(rf"{START}(?:use|write|indent|prefer|answer|reply|respond|speak|stick|target)\ "),
    "host": _cue(HOST),
    "use for": _cue(
        rf"{START}(?:use|take|prefer|choose|pick|try|trust)\s(?:the\ |our\ )?[\w./`'@-]{{1,40}}(?:"
        rf"\ [\w./`'-]{{1,30}})?\s(?:for|when|in)\s"
        rf"(?:\w+\ ){{0,2}}?(?:{ACTIVITY}|{DATA}|(?:scripts|images|everything|storage|logging|dates|auth\w*|new\ \w+"
        rf"|secrets)\b)"
    ),
    "data": _cue(DATA),
    "people": _cue(rf"^{MARK}{PEOPLE}\ "),
    "link": _cue(
        rf"{ACTIVITY}[^.;\n]{{0,50}}?(?:\b(?:with|via|through|using|by\ means\ of|by|on|uses?|needs?|requires?|calls?"
        rf"|runs?|goes?\ to|belongs?\ to|in)\ |[:>]\ ?)(?:(?:the|only|always|just|our)\ |\w+ing\ ){{0,2}}{COMMAND}",
        rf"{COMMAND}[^.;\n]{{0,30}}?\b(?:is|does|runs?|executes?|handles?|covers?|for|to|when|before|after|on)\ "
        rf"(?:\w{{1,12}}\ ){{0,4}}?{ACTIVITY}",
    ),
    "replaced": _cue(
        rf"{COMMAND},?\ (?:\w{{1,12}}\ ){{0,3}}?(?:replac(?:ed|es)|dropped|superseded|took\ over|retired|out\b|gone"
        rf"|banned"
        r"|forbidden|broken|switched\ off|(?:isn't|not)\ (?:used|supported|allowed)|removed|obsolete|stays)",
        rf"\b(?:replaces?d?|supersedes?d?|drop(?:ped)?|instead\ of|rather\ than|in\ favou?r\ of|over|not|off|left"
        rf")\ (?:the\ )?['\"]?{COMMAND}",
        # "Use `load` to read a file" is what documentation says; a program by name, or nothing behind it, is an order.
        rf"\b(?:use|try|prefer)\ (?:the\ )?['\"`]?(?:{TOOLS}\b|{COMMAND}[.!]?$)",
    ),
    "skipped": _cue(
        r"\b(?:skip|bypass|without|no\ need\ (?:to|for)|needn't|(?:not|don't|doesn't|n't)\ (?:need|have|require|want)"
        r"|not\ (?:needed|required|necessary|wanted)|optional|unnecessary|(?:can|may)\ be\ (?:ignored|skipped|committed"
        r"|bypassed|omitted|left\ out)|rejected|for\ no|waive[sd]?|turn(?:ed)?\ off|ignore)\b"
    ),
    "guard": _cue(GUARD),
    "notice": _cue(
        r"^[\W\d]{0,20}(?:\w{1,15}:\ )?(?:reminder|psa|heads[\ -]?up|fyi|btw|by\ the\ way|note\ to\ self|nota\ bene|nb"
        r"|important|attention|announcement|change\ of\ plans?|next\ steps?|tip)\b"
    ),
}
_TOGETHER = (
    ("imperative", "command", "activity"),
    ("imperative", "command", "standing"),
    ("imperative", "command", "replaced"),
    ("imperative", "activity", "standing"),
    ("imperative", "data", "standing"),
    ("imperative", "occasion"),
    ("imperative", "host"),
    ("obliged", "host"),
    ("styling", "style"),
    ("use for",),
    ("clause", "command"),
    ("clause", "activity"),
    ("clause", "data"),
    ("advice", "command"),
    ("obliged", "command", "activity"),
    ("obliged", "command", "standing"),
    ("obliged", "data", "activity"),
    ("obliged", "activity", "standing"),
    ("people", "data", "standing"),
    ("notice", "command"),
    ("notice", "activity", "standing"),
    ("link", "standing"),
    ("replaced", "standing"),
    ("skipped", "guard", "imperative"),
    ("skipped", "guard", "standing"),
    ("skipped", "guard", "activity", "obliged"),
)
# One line this short is no log and no file: an order stands alone in it.
_SHORT = 200
_ALONE = _cue(
    rf"{START}(?!(?:check|try|read|wait|return|show|fix|update|finish|count|let's)\ ){DEEDS}\ [^:=(]{{3,}}[.!][\"'\s]*$"
)
_SPLIT = re.compile(r"(?<=[.;!?])[\"')]?\s+|\n")
_CODE = re.compile(
    r"[{};,(\[]\s*$|^\s*--?[a-z][\w-]*(?:[\ ,=\[]|$)|^\s*(?:def|class|return|import|from\ \S+\ import|raise|if|elif"
    r"|for|while|with|assert|yield|@|const"
    r"|let|var|func|fn|pub|public|private|static|case|\.)\b|\w\(|\w\s*[-+*/|&:]?=\s|::|</|^\s*[@$<>]{1,2}\w",
    re.VERBOSE,
)
_COMMENT = re.compile(r"(?:^|\s)(?:#|//|\*|--|<!--|;;)\s")


def _sentences(text: str) -> Iterator[str]:
    for part in _SPLIT.split(text):
        if len(part) < 8:
            continue
        comment = _COMMENT.search(part)
        if comment:
            yield part[comment.start() :][:_LONGEST]
        elif not _CODE.search(part):
            yield part[:_LONGEST]


def _instructs(sentence: str) -> bool:
    known: dict[str, bool] = {}

    def has(cue: str) -> bool:
        if cue not in known:
            known[cue] = _CUES[cue].search(sentence) is not None
        return known[cue]

    return any(all(has(cue) for cue in together) for together in _TOGETHER)


def has_instructing_sentence(text: str) -> bool:
    """Tell whether a sentence of a text has cues enough, or is an order that stands alone."""
    alone = len(text) <= _SHORT and "\n" not in text.strip() and not _CODE.search(text)
    return any((alone and _ALONE.search(sentence)) or _instructs(sentence) for sentence in _sentences(text))
