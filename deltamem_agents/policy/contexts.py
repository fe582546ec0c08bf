"""Find secrets that only their surroundings give away: names, sentences, URLs, headers.

Everything is found from a literal word or sign, and what is read from there is bounded, so time is linear in the text.
"""

import re
from collections.abc import Iterator

from deltamem_agents.policy.secret_values import is_login, is_password, is_strong, is_token, names_a_secret

__all__ = ["credentials", "keyed_values", "named_kind"]

Span = tuple[int, int, str]

_PASSWORDS = ("password", "passwd", "passphrase", "passcode", "pwd")
_PASSWORD_WORDS = ("pass", "pw")  # only as whole words
_OTHERS = ("secret", "token", "credential", "bearer")
# A "key" is a secret only as one of these.
_KEYS = re.compile(
    r"(?:api|access|private|auth|encryption|signing|master|account|license|session|service|storage)[_ -]?\Z"
)
# U+FDD0 stands for what has been redacted; no value contains it.
_QUOTED = r"""\\?"(?P<d>[^"\\\n\ufdd0]{4,4096}+)|\\?'(?P<s>[^'\\\n\ufdd0]{4,4096}+)|`(?P<b>[^`\n\ufdd0]{4,4096}+)"""
_CHARACTER = r"""[^\s"'`,;&=()<>\[\]{}\\|\ufdd0]"""
# "&" ends a value where another parameter begins; "=" may stand inside a few times, and at the end of base64.
_BARE = (
    rf"(?P<u>{_CHARACTER}{{1,4096}}+(?:(?:&(?!\w{{1,40}}=)|={{1,3}}+){_CHARACTER}{{0,4096}}+){{0,4}})(?![(\[\ufdd0])"
)
_ASSIGNED = re.compile(
    r"""(?P<rest>[\w-]{0,40}+)\\?["'`]?\]?[ \t]{0,8}+(?:"""
    r"""(?::[ ]?[A-Za-z_][\w.\[\]]{0,40}+(?:[ ]\|[ ]None)?[ ]{0,4}=|=>|:=|={1,3}|!=|:|>(?![ ]))[ \t]{0,8}+"""
    rf"""(?:[bru]{{0,2}}(?:{_QUOTED})|{_BARE})"""
    r"""|,[ ]{0,4}(?:"(?P<cd>[^"\\\n\ufdd0]{4,4096}+)|'(?P<cs>[^'\\\n\ufdd0]{4,4096}+)))"""
)
_FLAG = re.compile(rf"""(?P<rest>[\w-]{{0,20}}+)[ ]{{1,4}}(?!-)(?:{_QUOTED}|{_BARE})""")
_SAID = re.compile(
    r"""s?[ ](?:(?:for|to|of|on|in|at)[ ](?:[^\s\ufdd0]{1,40}[ ]){1,6}?)?"""
    r"""(?:is|was|are|will[ ]be|set[ ]to|changed[ ]to|to|be):?[ ]{1,3}"""
    r"""(?:now[ ]|still[ ]|always[ ]|just[ ])?:?[ ]{0,2}"""
    rf"""(?:{_QUOTED}|{_BARE})"""
)
_LABELLED = re.compile(
    r"[ ](?:for|to|of|on|in|at)[ ](?:[^\s:\ufdd0]{1,40}[ ]){0,5}[^\s:\ufdd0]{1,40}:[ ]{1,2}"
    rf"(?:{_QUOTED}|{_BARE})"
)
_FOLLOWS = re.compile(rf"[ ]{{1,2}}:?[ ]?(?:{_QUOTED}|{_BARE})")
_LOGIN_WORD = re.compile(r"\b(?:login|user(?:name)?|and|with|use|using)\b", re.IGNORECASE)
_PASSPHRASE = re.compile(r"[ ]?(?:is|:|=)[ ]{1,2}(?P<u>[a-z]{3,12}(?:[ ][a-z]{3,12}){3,11})(?![a-z])")
_CANDIDATE = re.compile(r"(?<![\w+/=.~-])[A-Za-z0-9+/_.=~-]{16,512}+(?![\w\ufdd0])")
_IS_THE = re.compile(r"""["'`]?[ ](?:is|as)[ ](?:the|my|our|your|a|an)[ ](?:[\w-]{1,30}[ ]){0,3}\Z""")
_LAST_WORD = re.compile(r"""[^\s"'`()\ufdd0]{6,128}\Z""")
# Words that say that a long string beside a keyword is something else.
_SOMETHING_ELSE = re.compile(
    r"commit|sha-?\d|hash|digest|checksum|md5|etag|uuid|revision|\brev\b|version|image|file|path|import|http|public|model"
    r"|://",
    re.IGNORECASE,
)
_HEADER = re.compile(r"[ ]{1,3}(?P<u>[A-Za-z0-9+/_.~-]{12,4096}+=*+)(?![\ufdd0])")
_LOGIN = re.compile(r"""[^\s:/@"'<>\ufdd0]{0,100}+:(?P<u>[^\s/"'<>`\ufdd0]{1,200})@""")
_CURL = re.compile(r"""(?:-u|--user)[ =]?["']?[\w.@+-]{1,64}+:(?P<u>[^\s"'\ufdd0]{3,128}+)""")
# Commands that take a password after -p, and npm's name for a login in base64.
_COMMANDS = {
    "sshpass": re.compile(r"""sshpass[ ]{1,3}-p[ ]?["']?(?P<u>[^\s"'\ufdd0]{3,128}+)"""),
    " login ": re.compile(r"""[ ]login[ ](?:[^\s\ufdd0]{1,80}[ ]){0,6}?-p[ ]["']?(?P<u>[^\s"'\ufdd0]{3,128}+)"""),
    "mysql": re.compile(r"""mysql\w{0,10}[ ](?:[^\s\ufdd0]{1,80}[ ]){0,6}?-p["']?(?P<u>[^\s"'\ufdd0]{3,128}+)"""),
    "_auth": re.compile(r"""_auth[ ]?=[ ]?["']?(?P<u>[A-Za-z0-9+/]{12,1024}+={0,2})(?!\w)"""),
}
_DATABASE = re.compile(
    r"(?:postgres(?:ql)?|mysql|mariadb|mongodb|rediss?|amqps?|mssql|sqlserver|oracle|clickhouse|snowflake|cockroachdb)"
    r"(?:\+[\w.-]{1,30})?\Z"
)
_STAND_INS = frozenset(
    {"password", "pass", "passwd", "pwd", "secret", "token", "...", "your-password", "your_password"}
)


def keyed_values(text: str, lowered: str) -> Iterator[Span]:
    """Yield the spans of values beside a word such as password, secret, token or api_key.

    lowered: the text in lower case, of the same length.
    """
    for start, end, password in _keywords(lowered):
        name = _name(text, start) + text[start:end]
        found = _assigned(text, end, name, password=password)
        if found is None:
            found = _nearby(text, start, end, name, password=password)
            if found is None or not names_a_secret(name):
                continue
        yield found


def named_kind(name: str, value: str) -> str | None:
    """Return what kind of secret a value is that stands under this name in a mapping; None if it is none."""
    if not names_a_secret(name):
        return None
    words = list(_keywords(name.lower()))
    if any(password for _, _, password in words):
        return "password" if is_password(value, quoted=True) and not _is_directory(name, value) else None
    return _kind(name) if words and _is_named_token(name, value) else None


def _is_named_token(name: str, value: str) -> bool:
    return is_token(value, assigned=True, name=name) or ("secret" in name.lower() and is_strong(value))


def _keywords(lowered: str) -> Iterator[tuple[int, int, bool]]:
    """Yield each keyword's span, and whether it announces a password."""
    for word in (*_PASSWORDS, *_OTHERS):
        for at in _occurrences(lowered, word):
            yield at, at + len(word), word in _PASSWORDS
    for word in _PASSWORD_WORDS:
        for at in _occurrences(lowered, word):
            end = at + len(word)
            if not lowered[at - 1 : at].isalnum() and not lowered[end : end + 1].isalnum():
                yield at, end, True
    for at in _occurrences(lowered, "key"):
        if _KEYS.search(lowered, max(0, at - 11), at):
            yield at, at + 3, False


def _occurrences(text: str, word: str) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + len(word))


def _name(text: str, end: int) -> str:
    """Return the part of an identifier that ends here."""
    start = end
    while start > max(0, end - 40) and (text[start - 1].isalnum() or text[start - 1] in "._-"):
        start -= 1
    return text[start:end]


def _assigned(text: str, end: int, name: str, *, password: bool) -> Span | None:
    """Return the value of `name = value`, `"name": "value"` or `--name value`, if it is a secret."""
    match = _ASSIGNED.match(text, end)
    if match is None:
        match = _FLAG.match(text, end) if name.startswith("--") else None
    if match is None:
        return None
    start, stop, group = _value(text, match)
    value = text[start:stop]
    if group in {"cd", "cs"} and not any(character.isdigit() for character in value):
        return None
    if password:
        good = is_password(value, quoted=group != "u", plain_words=name.isupper() or name.startswith("--"))
        good = good and not _is_directory(name, value)
    else:
        good = _is_named_token(name, value)
    if not good or not names_a_secret(name + match["rest"]):
        return None
    return start, stop, "password" if password else _kind(name)


def _nearby(text: str, start: int, end: int, name: str, *, password: bool) -> Span | None:
    """Return a secret in the same sentence: "the password is …", "token … for …", "… is my api key"."""
    if password and (said := _said_password(text, start, end)) is not None:
        return said
    begun = _CANDIDATE.search(text, end, end + 97)
    candidate = None if begun is None else _CANDIDATE.match(text, begun.start())
    if candidate is not None and _is_beside(text, end, candidate.start()):
        value = candidate.group().rstrip(".")
        if is_token(value, assigned=False):
            return candidate.start(), candidate.start() + len(value), _kind(name)
    return _before(text, start, name, password=password)


def _is_beside(text: str, end: int, start: int) -> bool:
    """Tell whether what is between a keyword and a long string leaves the string the keyword's."""
    between = text[end : min(start, end + 81)]
    return (
        len(between) <= 80 and "\n" not in between and "\ufdd0" not in between and not _SOMETHING_ELSE.search(between)
    )


def _said_password(text: str, begin: int, end: int) -> Span | None:
    phrase = _PASSPHRASE.match(text, end)
    if phrase is not None and is_password(phrase["u"], quoted=True):
        return *phrase.span("u"), "password"
    match = _SAID.match(text, end) or _LABELLED.match(text, end)
    if match is not None:
        start, stop, group = _value(text, match)
        ends_sentence = not text[stop : stop + 2].strip(" .!?,;)") or text[stop : stop + 1] in ".!,;\n"
        if is_password(text[start:stop], quoted=group != "u", plain_words=ends_sentence):
            return start, stop, "password"
    follows = _FOLLOWS.match(text, end)
    if follows is not None:
        start, stop, _ = _value(text, follows)
        login = _LOGIN_WORD.search(text, max(0, begin - 40), begin) is not None
        if is_strong(text[start:stop]) or (login and is_login(text[start:stop])):
            return start, stop, "password"
    return None


def _before(text: str, start: int, name: str, *, password: bool) -> Span | None:
    """Return what is said to be the secret before its name: "hunter2 is my password"."""
    here = max(text.rfind(" is ", max(0, start - 100), start), text.rfind(" as ", max(0, start - 100), start))
    if here < 0 or _IS_THE.match(text, here, start) is None:
        return None
    word = _LAST_WORD.search(text, max(0, here - 129), here)
    if word is None or not (is_token(word.group(), assigned=False) or (password and is_strong(word.group()))):
        return None
    return *word.span(), "password" if password else _kind(name)


def credentials(text: str, lowered: str) -> Iterator[Span]:
    """Yield passwords in URLs and connection strings, and credentials in headers and of curl."""
    for at in _occurrences(text, "://"):
        login = _LOGIN.match(text, at + 3)
        if login is not None and not _is_stand_in(login["u"]):
            database = _DATABASE.search(lowered, max(0, at - 40), at)
            yield *login.span("u"), "url-password" if database is None else "connection-string"
    for scheme in ("bearer", "basic"):
        for at in _occurrences(lowered, scheme):
            header = _HEADER.match(text, at + len(scheme))
            if header is not None and is_token(header["u"].rstrip("="), assigned=True):
                yield *header.span("u"), "authorization"
    if "curl" in text:
        yield from ((*m.span("u"), "password") for m in _CURL.finditer(text) if not _is_stand_in(m["u"]))
    for literal, pattern in _COMMANDS.items():
        for at in _occurrences(text, literal):
            given = pattern.match(text, at)
            if given is not None and not _is_stand_in(given["u"]):
                yield *given.span("u"), "password"


def _value(text: str, match: re.Match[str]) -> tuple[int, int, str]:
    """Return the span of the value that a pattern found, and the group that holds it: "u" is not quoted."""
    group = match.lastgroup or "u"
    start, end = match.span(group)
    if group == "u":
        end = start + len(text[start:end].rstrip(".?:"))
    return start, end, group


def _kind(name: str) -> str:
    lowered = name.lower()
    return "token" if "token" in lowered or "bearer" in lowered else "api-key" if "key" in lowered else "secret"


def _is_directory(name: str, value: str) -> bool:
    return name.lower().endswith("pwd") and ("/" in value or value.startswith("~"))


def _is_stand_in(value: str) -> bool:
    return value.lower() in _STAND_INS or value[0] in "<${%*[" or not value.strip("xX*.")
