"""Judge whether a text beside a word such as "password" is the secret itself, or code and prose about one."""

import math
import re
from collections import Counter

__all__ = ["is_login", "is_password", "is_strong", "is_token", "names_a_secret"]

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TEMPLATE = re.compile(r"^[<$%{]|[{}]|^\*+$|^[x.X*-]+$|^(?:https?://|/|~/|\./|\.\./)|^\$2[aby]\$|^sha\d+[:-]")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_NUMBERED = re.compile(r"[A-Za-z]{0,3}\d{1,8}[A-Za-z]{0,2}|[A-Za-z]*")
_ALPHABET = re.compile(r"[A-Za-z0-9+/_.~:%!@#$^&*-]+")
_SPECIAL = re.compile(r"[!@#$%^&*+?~]")
_NUMBERED_NOUN = re.compile(
    r"(?:field|page|form|input|step|test|rule|version|policy|hash|check|box|prompt|type|level|option|file|table|column|row"
    r"|line|item|param|arg|v)[_-]?\d{1,3}",
    re.IGNORECASE,
)
_KEYWORD = re.compile(r"pass|secret|token|key|pwd|credential", re.IGNORECASE)
_CHANGE = re.compile(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[a-z0-9])|(?<=[0-9])(?=[A-Za-z])")
# A name with one of these words speaks about a secret: its length, its file, its hash.
_ABOUT = re.compile(
    r"hash|sha\d|md5|digest|checksum|uuid|name|count|type|limit|length|len\b|ur[il]\b|path|file|dir\b|expir|ttl|timeout"
    r"|hint|public|izer|iz[ei]|field|label|polic|(?:_|\b)env|(?:_|\b)var\b|index|position|usage|budget|_ids?\b|Id\b"
    r"|(?:^|[._-])(?:pad|eos|bos|max|min|num|n|cls|sep)_",
    re.IGNORECASE,
)
_NOT_SECRETS = re.compile(
    r"pass(?:word|wd)?|pwd|secret|token|none|null|true|false|str(?:ing)?|text|number|bytes|secretstr|required|optional"
    r"|hidden|visible|empty|missing|wrong|(?:in)?correct|(?:in)?valid|expired|changed|stored|hashed|encrypted|protected"
    r"|unknown|example|change[_-]?me|placeholder|redacted|masked|undefined|default|unset|weak|strong|safe|secure|public"
    r"|private|set|reset|here|there|this|that|not|the|too|only|always|never|also|now|still|used|needed|given|short|long"
    r"|(?:your|my)[_-]?password|bcrypt|argon2|scrypt|pbkdf2|md5|sha1|sha256|sha512|base64"
)
_PROSE_WORD = re.compile(
    r"\b(?:an?|the|in|on|of|to|for|and|or|is|are|was|be|must|with|by|from|at|as|its?|this|that|your|my|our|their|please"
    r"|enter|not|no|if|when|should|can|will|may|has|have|new|old|only|than|least|same|via|using|into)\b",
    re.IGNORECASE,
)
_PARTICIPLE = re.compile(r".*(?:ed|ing|able|ible|ly|en|ory|ary|al|ive|ous|ful|less|ic|ant|ent)")


def names_a_secret(name: str) -> bool:
    """Tell whether a name such as DB_PASSWORD names a secret, and not its length, file or hash."""
    return _ABOUT.search(name) is None


def is_telling(name: str) -> bool:
    """Tell whether a name has a word of secrets in it, and names one itself."""
    return _KEYWORD.search(name) is not None and names_a_secret(name)


def is_password(value: str, *, quoted: bool, plain_words: bool = False) -> bool:
    """Tell whether a value after "password is" or "password =" can be one.

    quoted: it stood in quotes, so it is a literal and no code. plain_words: a word of letters alone counts as well.
    """
    if len(value) < 4 or _NOT_SECRETS.fullmatch(value.lower().strip(".!?")) or _TEMPLATE.search(value):
        return False
    if len(value.split()) > 1:
        return quoted and _PROSE_WORD.search(value) is None
    if re.fullmatch(r"[A-Za-z_-]+", value):
        return (quoted or (plain_words and not _PARTICIPLE.fullmatch(value))) and not _KEYWORD.search(value)
    if not quoted and _DOTTED.fullmatch(value):
        return False
    return value.isdecimal() or bool(
        re.search(r"[A-Za-z]", value) and (re.search(r"\d", value) or _SPECIAL.search(value))
    )


def is_token(value: str, *, assigned: bool, name: str = "") -> bool:
    """Tell whether a value looks drawn at random: many changes between letters, capitals and digits, and high entropy.

    assigned: it stands right after its name, where 8 characters are enough; else 16 are needed.
    """
    value = value.rstrip("=")
    if (
        not (8 if assigned else 16) <= len(value) <= 4096
        or "=" in value
        or not _ALPHABET.fullmatch(value)
        or _TEMPLATE.search(value)
    ):
        return False
    if _UUID.fullmatch(value):
        return assigned and bool(re.search(r"api.?key|secret|pass", name, re.IGNORECASE))
    if all(_NUMBERED.fullmatch(part) for part in re.split(r"[_./:-]", value)):
        return len(value) == 40 and "_" not in value and "-" not in value and _is_random(value, 4.0)
    if _DOTTED.fullmatch(value) and value.count(".") < 3 and not _is_random(value, 4.0):
        return False
    longest = max(re.split(r"[^A-Za-z0-9]", value), key=len)
    mixed = bool(re.search(r"\d", longest)) and len(_CHANGE.findall(longest)) >= (2 if assigned else 3)
    return (mixed and len(longest) >= (8 if assigned else 12) and _entropy(longest) >= 2.6) or _is_random(value, 3.8)


def is_strong(value: str) -> bool:
    """Tell whether a word mixes at least three kinds of characters, as few words of a sentence do."""
    kinds = (r"[a-z]", r"[A-Z]", r"\d", r"[!@#$%^&*+?~]")
    mixed = 8 <= len(value) <= 64 and sum(bool(re.search(kind, value)) for kind in kinds) >= 3
    return mixed and is_password(value, quoted=False)


def is_login(value: str) -> bool:
    """Tell whether a word after "with password" can be one: letters and digits, and no numbered thing."""
    mixed = re.search(r"[A-Za-z]", value) and re.search(r"\d", value) and len(value) >= 6
    return bool(mixed) and _NUMBERED_NOUN.fullmatch(value) is None and is_password(value, quoted=False)


def _is_random(value: str, entropy: float) -> bool:
    changes = len(_CHANGE.findall(value))
    classes = sum(bool(re.search(kind, value)) for kind in ("[a-z]", "[A-Z]", r"\d", r"[^A-Za-z0-9]"))
    return len(value) >= 16 and classes >= 3 and changes >= 0.3 * len(value) and _entropy(value) >= entropy


def _entropy(value: str) -> float:
    """Return Shannon's entropy of the characters, in bits a character."""
    total = len(value)
    return -sum(count / total * math.log2(count / total) for count in Counter(value).values())
