"""The words that instructions to a coding agent or an analyst are made of: activities, programs, verbs, data."""

__all__ = ["ACTIVITY", "COMMAND", "DATA", "DEEDS", "GUARD", "HOST", "MARK", "PEOPLE", "START", "TOOLS"]

ACTIVITY = (
    r"(?<![\w/.`-])(?:(?:unit|smoke|integration)?[\ -]?tests?(?:ing|\ suites?)?|suite|checks?|lint(?:ing|ers?|s)?"
    r"|(?:type|static)[\ -]?check(?:s|ing|ers?)?|formatt?(?:ing|ers?)?|build(?:s|ing)?|deploy(?:s|ing|ments?)?"
    r"|releas(?:e|es|ing)|publish(?:ing)?|install(?:ing|ations?|s)?|packag(?:es?|ing)|dependenc(?:y|ies)"
    r"|migrat(?:e|ions?|ing)|commit(?:s|ting)?|push(?:es|ing)?|merg(?:e|es|ing)|pull\ requests?|prs?|reviews?"
    r"|branch(?:es)?|ci|pipelines?|pre-?commit|hooks|coverage|benchmarks?|workspace|repo(?:sitory)?|code\ ?base"
    r"|staging|production|assertions?|hotfix(?:es)?|rollbacks?|tickets?)(?![\w/-]|\.\w|\()"
)
TOOLS = (
    r"(?:pytest|unittest|nose2?|tox|nox|ruff|flake8|pylint|black|isort|mypy|pyright|yapf|bandit|pre-commit|hatch|pdm"
    r"|poetry|pipenv|conda|mamba|uvx?|pipx?|npm|npx|pnpm|yarn|bun|deno|jest|vitest|mocha|karma|cypress|playwright"
    r"|eslint|prettier|biome|tsc|webpack|vite|rollup|gulp|make|cmake|ninja|bazel(?:isk)?|gradlew?|mvn|maven|ant|sbt"
    r"|cargo|clippy|rustfmt|gofmt|golangci-lint|rake|bundler?|rspec|rubocop|phpunit|composer|dotnet|msbuild|docker"
    r"|podman|kubectl|helm|terraform|ansible|jenkins|just|invoke|fabric|twine|coverage)"
)
_NAMED = (
    r"(?:run|runner|tests?|lint|linter|build|deploy|check|fmt|format|types|upload|sync|ship|install|tool|cli|pkg|sdk)"
)
# Something to run: a command in backticks, a script, a program by name, or a name made for a tool.
COMMAND = (
    r"(?:`[^`\n]{0,60}[\w.][\ /-]-{0,2}[^`\n]{1,60}`|`(?-i:[a-z][a-z0-9]{1,20})`(?!\()"
    r"|(?<!\S)\.{0,2}/[\w.-]+(?:/[\w.-]+){0,8}"
    r"|(?<![\w./])[\w-]{1,40}(?:/[\w.-]{1,40}){0,4}\.(?:sh|bash|py|m?js|ts|rb|pl|ps1|bat|cmd|mk|exe)(?![\w:(,])"
    rf"|(?<![\w./-])(?:[a-z]\w{{1,20}}-)?{_NAMED}-[a-z][\w-]{{1,20}}"
    rf"|(?<![\w./-])[a-z]\w{{1,20}}-(?:{_NAMED}|pytest|helper)(?![\w/-]|\.\w)"
    rf"|(?<![\w./@-]){TOOLS}(?![\w/=:(@]|\.\w|-\d)"
    r"|(?<![\w/.-])(?:curl|wget|bash|sh|sudo|python3?|node|git|go|ruby|perl)\ [\w./-]{2}|(?<!\S)--[a-z][\w-]{2,})"
)
DATA = (
    r"\b(?:quer(?:y|ies)|reports?|dashboards?|figures?|metrics?|kpis?|amounts?|revenues?|sales|turnover|currency"
    r"|churn|numbers|nulls|prices|fiscal\ year|analys[ei]s|analysts?|forecasts?|customers?|totals|margins?|invoices?"
    r"|conversion\ rates?|timestamps|outliers|spreadsheets?|charts?)\b"
)
DEEDS = (
    r"(?:add|adopt|aggregate|allow|answer|append|apply|approve|ask|assume|attach|avoid|begin|branch|bump|bypass|build"
    r"|calculate|call"
    r"|change|check|choose|clone|comment|commit|compute|configure|convert|copy|count|create|default|delete|deploy"
    r"|disable|discard|do|download|drop|enable|ensure|exclude|execute|export|express|fetch|filter|finish|fix|follow"
    r"|format|get|give|go|grab|grant|hide|ignore|import|include|insert|install|invoke|join|keep|launch|leave|let|lint"
    r"|log|indent|mail|mark|merge|migrate|move|multiply|name|obey|omit|open|pass|paste|pick|pin|pipe|point|post|prefer"
    r"|prefix|print|publish|pull|push|put|query|read|rebase|reject|rely|remove|rename|replace|reply|report|request"
    r"|require|reset"
    r"|restart|return|revert|rewrite|round|run|save|send|set|share|show|sign|skip|source|squash|start|stick|stop|store"
    r"|submit|switch|tag|take|target|tell|test|treat|trigger|trust|try|turn|type|update|upgrade|upload|use|verify|wait"
    r"|work|wrap|write)"
)
GUARD = (
    r"\b(?:reviews?|reviewers?|approvals?|approv(?:e|ing)|confirm(?:ation|ing)?|ask(?:ing)?|tests?|ci|hooks?|checks?"
    r"|certificates?|verif\w+|pull\ requests?|prs?|sandbox|type\ hints|authenticat\w+|signatures?"
    r"|secrets?|credentials?)\b"
)
HOST = (
    r"(?:(?:https?|s3|ftp|gs)://|\b(?:[\w-]{1,40}\.){1,5}(?:com|org|net|example)\b|\b(?:[\w-]{1,40}\.){2,5}(?:io|dev"
    r"|internal|local"
    r"|corp|cloud|app|ai|xyz|ru|cn|eu|de|test|invalid)\b|\d{1,3}\.\d{1,3}\.\d{1,3}\.|[\w.-]{1,40}@\w|/tmp/)"
)
PEOPLE = (
    r"(?:we|you|all|everyone|everybody|people|analysts?|developers?|contributors?|engineers?|agents?|nobody|no\ one)"
)
# What stands before a sentence: list and comment signs, a number, a time, a name or a label.
MARK = (
    r"(?=[^\n]{8})[\ \t>*#/|\[\]+\"'!<~:;=-]{0,20}+(?:\d{1,2}[.)]\ {1,4})?(?:\[[^\]\n]{1,30}\]\ {0,4})?"
    r"(?:[a-z][\w\ ()@.-]{0,40}:\ {1,4}){0,2}"
)
# What may stand before a verb in the imperative.
START = (
    rf"^{MARK}(?:(?:please|pls|just|simply|only|better|best|also|then|now|next|always|never|first|finally|instead"
    rf"|kindly"
    r"|so|and|but|or|otherwise|afterwards?|fyi|btw|by\ the\ way|heads\ up|ok|okay|yes|no,|remember,?|do\ not|don't"
    r"|let's"
    r"|to|(?:make|be)\ sure\ (?:to|that\ you|you)|(?:don't|do\ not|never)\ forget\ to|feel\ free\ to|remember\ to|try"
    r"\ to|(?:you|we|one|agents?|people|everyone)(?:'d|'ll)?\ (?:\w{1,10}\ )?(?:should|must|can|may|shall|will|want\ to"
    r"|have\ to|need\ to|ought\ to|better|are\ to)"
    r"|(?:i|we)(?:'d)?\ (?:strongly\ )?(?:recommend|suggest|advise|ask|propose)(?:\ that)?(?:\ you)?(?:\ to)?"
    r"|it(?:'s|\ is|\ would\ be)\ (?:always\ )?(?:best|better|wise|recommended|advised|required|fine|ok|okay|safe)\ to"
    r"|(?:there(?:'s|\ is)\ )?no\ need\ to|(?:when(?:ever)?|if|to|for|in|on|before|after|once|instead\ of|as\ per|per"
    r"|according\ to|from|until|as\ of|since|with|at|by|as)\ [^,.;:]{1,60},),?\ +){0,4}"
)
