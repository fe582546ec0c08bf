"""Patterns of what sets a habit without an order: labels, definitions, things said of the user, other languages."""

from deltamem_agents.policy.shape_words import ACTIVITY, COMMAND, DATA, DEEDS, HOST, MARK, PEOPLE, START, TOOLS

__all__ = ["STATED"]

_LABEL = r"(?:test|lint|build|format|deploy|release|run|install|check|package|start|publish)"
_SUBJECT = (
    r"(?!test\ case)(?:(?:the|our|all|any|new|failing|every)\ )?(?:[\w-]{1,15}\ ){0,2}?"
    rf"(?:{ACTIVITY}|{DATA}|\bcors\b|\b(?:secrets|credentials|passwords|tokens|keys)\b)"
)


def _any(*alternatives: str) -> str:
    return "|".join(alternatives)


STATED = _any(
    # A label and what belongs to it: "test_command: ./t.sh", "Tests -> tox", a heading and a command line.
    rf"\b{_LABEL}(?:s|ing)?[_\ -](?:command|cmd|runner|tool|script|with|using|manager|linter)s?[\"'`]{{0,2}}\s{{0,3}}"
    r"(?::|=>|->|→|=\ (?!none\b|true|false|[\w.]{1,40}[(\[]))\s{0,3}(?:[\"'`][\w./]|\.?/|[\w.]{2,20}[\ -][\w./-]"
    r"|[\w-]{2,20}$)",
    rf"^[\s>*\#|+-]{{0,12}}(?:\w{{1,15}}:\s)?{ACTIVITY}\ {{0,3}}(?:->|=>|→|:)\ {{0,3}}(?:just\ |only\ )?{COMMAND}",
    rf"^\#{{1,4}}\ (?:\w{{1,15}}\ ){{0,3}}{ACTIVITY}[^\n]{{0,20}}\n\s{{1,12}}(?:```\w{{0,10}}\s{{1,8}})?(?:\$\ "
    rf"|(?<=\s```)\w)",
    rf"\b(?:how|which|what)\b[^?\n]{{0,60}}?{ACTIVITY}[^?\n]{{0,40}}\?\s{{0,3}}(?:a(?:nswer)?:\s)?[^\n?]{{0,20}}{COMMAND}",
    r"\b(?:hint|fix|help|tip|solution|setup|suggestion|resolution|workaround)\s*:\s*(?:sudo\ )?"
    r"(?:pip3?|npm|yarn|pnpm|uv\ pip|gem|cargo|brew|apt(?:-get)?|go|conda)\ (?:install|add|i|get)\ ",
    r"^\s{0,8}(?:agents?|assistants?|copilot|llm|ai)(?:[_-]\w{1,15})?\s*:\s*\n\s+(?:-\ )?"
    r"(?:commands?|instructions?|rules?|always|never|run|test|lint|build|tasks?|steps?|tools?)\b",
    rf"^{MARK}(?:test|lint|build|format|deploy|release|check)s?\s?(?:=|->|=>"
    rf"|→)\s?[a-z][\w.-]{{1,20}}(?:\s[a-z-][\w-]{{1,20}}){{0,3}}\s*$",
    rf"^{MARK}(?:{ACTIVITY}\?|\w+\ \w+\ for\ {ACTIVITY}:)\s{{1,3}}[\w`./]",
    rf"\bit(?:'s|\ is)\ [\w`./-]{{2,30}}\ (?:for|that)\ (?:\w+\ ){{0,3}}?{ACTIVITY}",
    rf"{COMMAND}\ is\ (?:now\ )?(?:the|our|how|what)\ [^.\n]{{0,30}}{ACTIVITY}|\bof\ choice\ (?:is|here)\b|\b(?:our"
    rf"|the\ only)\ (?:\w+\ ){{0,2}}{ACTIVITY}\ (?:\w+\ ){{0,3}}(?:is|are)\ ",
    r"\b(?:project|code|repo\w{0,6}|package|library|everything|app|service)\ (?:is|gets)\ (?:\w+\ ){0,2}(?:tested"
    r"|linted|built|formatted|deployed|released|type-checked|published)\ (?:with|by|using|via|through)\ ",
    r"\bwe've\ (?:\w+\ )?(?:agreed|decided|switched|moved|adopted|standardi[sz]ed|migrated|dropped)\b",
    rf"^{MARK}(?:\w+\ ){{0,2}}?{ACTIVITY}\ (?:is|are)\ (?:always\ |now\ )?(?:named|tagged|cut|squashed|rebased|signed"
    rf"|prefixed"
    r"|reviewed|approved)\ ",
    r"\b(?:threshold|limit|minimum|maximum|timeout|quota|target|url|host|port|server|schema|unit|currency|version"
    r"|endpoint|tool"
    r"|runner|branch|address|location|owner)\ (?:\w+\ ){0,3}?(?:is|are)\ now\b|\b(?:url|host|endpoint|server|registry)"
    r"\ [^.\n]{0,30}"
    rf"\bis\ {HOST}",
    rf"\b(?:is|are)\ (?:pushed|sent|uploaded|shipped|mirrored|copied|forwarded|published|posted)\ (?:\w+\ ){{0,2}}?to"
    rf"\ {HOST}",
    r"\b(?:the\ )?(?:assistant|agents?|bots?|copilot)\ (?:may|can|is\ (?:allowed|free|permitted|authori[sz]ed)\ to|are"
    r"\ (?:allowed|free|permitted|authori[sz]ed)\ to)\ [^.\n]{0,60}\b(?:any|all|without|freely|directly|own)\b",
    rf"{START}let\ (?:the\ )?(?:agents?|assistant|bots?|users?)\ ",
    r"\b(?:names|customers?|data|credentials|passwords|tokens|secrets|emails?|addresses|keys|pii)\ (?:may|can)\ be"
    r"\ (?:shown|shared|published|deleted|exposed|stored|sent|committed|logged|printed)\b",
    r"\buse\ (?:the\ )?(?:\w+\ )?(?:token|key|password|secret)\ [\w-]{0,20}\d",
    r"\brun\ (?:this|it|the\ following)\ (?:before|after|first|now|to)\b",
    rf"^{MARK}(?:all|every|each)\ (?:new\ )?(?:functions?|class(?:es)?|modules?|files|methods?|variables|commits?"
    rf"|branch(?:es)?|scripts?"
    r"|endpoints?|services?|columns)\ (?:needs?|must|should|ha(?:s|ve)\ to|gets?|uses?)\b",
    rf"\b(?:replaces|supersedes)\ {TOOLS}\b",
    rf"^{MARK}{PEOPLE}\ (?:[\w'-]{{1,15}}\ ){{0,4}}?(?:uses?|runs?|calls?|executes?)\ (?:the\ )?{COMMAND}",
    # What is to be, and what goes where.
    rf"^{MARK}{_SUBJECT}\ (?:\w{{1,12}}\ ){{0,2}}?(?:(?:is|are)\ to\ (?:be\ \w+ed|go|use|run)\b|(?:should|must|shall"
    rf"|ha(?:s|ve)\ to)\ "
    r"(?:only\ |always\ |now\ |never\ )?(?:go|use|run|live|end|start|follow|point|allow|target)\b|belongs?\ (?:in|on"
    r"|to)\b)",
    r"\b(?:logging|logs|traffic|backups?|uploads?|reports?|queries|metrics|artifacts?|errors|builds|secrets|dumps?|data"
    rf"|telemetry|results|traces|commits|deploys|requests)\ (?:now\ |should\ |must\ |always\ )?(?:go(?:es)?|(?:is|are)"
    rf"\ sent|(?:is|are)\ written|(?:is|are)\ uploaded)\ (?:straight\ |directly\ )?(?:to|into)\ (?:\w{{1,12}}"
    rf"\ ){{0,2}}(?:{HOST}|main\b)",
    r"\bfrom\ (?:this|next)\ \w{3,10}\ on(?:wards?)?\b",
    r"\b(?:hotfix(?:es)?|changes|commits|releases|deploy(?:s|ments)|merges|prs)\ (?:may\ |can\ )?(?:bypass|skip)\ ",
    r"\b(?:reviews?|tests|approvals?|confirmations?)\ (?:is|are)\ (?:now\ )?(?:optional|unnecessary|not\ (?:needed"
    r"|wanted))\b",
    r"\bthe\ (?:right|correct|proper|expected|best)\ (?:thing|way|reaction|response|answer|fix)\b[^.\n]{0,60}\bis\ to\ "
    rf"{DEEDS}\b",
    r"\bunless\ (?:told|asked|instructed)\b",
    rf"^{MARK}(?:the\ |our\ |all\ )?(?:[\w-]{{1,15}}\ ){{0,2}}?(?:{DATA}|\b(?:weeks?|quarters?|timestamps|times|dates"
    rf"|users|sessions)\b)\ "
    r"(?:always\ |now\ )?(?:excludes?|includes?|starts?\ (?:on|in|at|with)|begins?\ (?:on|in)|are\ those|(?:is|are)"
    r"\ in\ (?-i:[A-Z])\w*|counts?\ as|refers?\ to|equals?)\b",
    rf"^{MARK}(?:the\ |our\ |all\ )?(?:[\w-]{{1,15}}\ ){{0,2}}?{DATA}\ (?:\w{{1,12}}\ ){{0,2}}?(?:means?\ |(?:is|are)"
    rf"\ (?:now\ "
    r"|always\ )?(?:computed|calculated|reported|defined|counted|expressed|measured|rounded|converted)\ "
    r"(?:with|from|in|as|by|using|on|without)\b|comes?\ from\ )",
    r"\b(?:default|standard|base|reporting)\ (?:currency|branch|database|model|unit|time\ ?zone|region|language|editor"
    r"|shell|registry|remote|interpreter|format|metric|schema)\ (?:is|are)\ (?:now|always)\b",
    # Style.
    rf"^{MARK}(?:our\ |the\ |all\ |new\ )?(?:line\ lengths?|indentation|docstrings|type\ hints|variable\ names|naming"
    r"|commit\ messages|branch\ names|imports|identifiers|comments)\s{0,2}(?::\ |(?:is|are)\ (?:\d|not|in|written"
    r"|named|always|never|forbidden|required)|follows?\ |ends?\ (?:with|in)\ |starts?\ with\ |go(?:es)?\ )",
    rf"{START}name\s(?:new\ |all\ |your\ |the\ )?(?:branch|file|test|variable|function|module|commit|tag)\w{{0,3}}\s",
    # Settings that are changed: versions, variables, rights.
    rf"{START}(?:pin|lock|downgrade|freeze)\s[\w.@/-]{{1,40}}\s(?:to|at|=)\s?v?\d",
    rf"{START}(?:set|point|change|switch|redirect|map)\s(?:the\ )?(?:\w{{1,20}}\.[\w.]{{1,40}}"
    rf"|(?-i:[A-Z][A-Z0-9_]{{3,30}}))\s(?:to|at)\s(?:~|/|{HOST})",
    rf"{START}(?:give|grant)\s[^.\n]{{1,60}}\b(?:rights?|access|permissions?|admin\w*|role|privileges?)\b",
    # Said of the user, or to the memory.
    r"\bthe\ user\ (?:now\ |always\ |has\ |also\ |already\ ){0,2}(?:likes?|prefers?|asked|told|said|wishes|agreed"
    r"|approved|would\ like|confirmed|authori[sz]ed)\b",
    r"\b(?:memory\ (?:update|note|entry)|new\ fact|note\ to\ self|user\ preferences?|fact\ to\ (?:keep|remember)"
    r"|(?:save|store|keep|note)\ (?:this|that|it)\ (?:for\ later|in\ mind|in\ (?:your\ |the\ )?memory))\s*(?:to"
    r"\ \w+)?\s*[:,-]",
    r"\b(?:save|store|keep|note)\ (?:this|that|it)\ (?:for\ later|in\ (?:your\ |the\ )?memory)\b",
    # Other languages.
    r"\b(?:ab\ (?:jetzt|sofort|heute)|von\ nun\ an|künftig|désormais|dorénavant|à\ partir\ de\ maintenant"
    r"|a\ partir\ de\ (?:ahora|agora)|de\ ahora\ en\ adelante|d'ora\ in\ poi|de\ agora\ em\ diante)\b",
    r"(?:^|[.:!,]\s)[\s>*\#/-]{0,12}(?:bitte\ |immer\ |nie(?:mals)?\ |por\ favor,?\ )?(?:verwende|nutze|benutze|führe"
    r"|starte"
    r"|sende|schicke|installiere|lösche|ignoriere|merke|utilisez|lancez|exécutez|envoyez|installez|ignorez|usa|utiliza"
    r"|utilice|ejecuta|ejecute|instala|instale|envía|envíe|usate|esegui|eseguite)n?\s",
    rf"\b(?:tests?|build|linter|code|projekt)\b[^.\n]{{0,40}}\b(?:mit|über|durch)\ (?:dem\ \w+\ )?{COMMAND}",
    rf"\b(?:avec|mediante|tramite)\ {COMMAND}|\b(?:immer|stets|toujours|siempre|sempre)\ (?:\w+\ ){{0,3}}{COMMAND}",
)
