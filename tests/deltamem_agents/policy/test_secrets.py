"""Secrets in text: what is found, what is left alone, and that nothing hostile breaks it.

The secrets are put together here from their parts, so that no scanner takes this file for a leak.
"""

import random
import re
import string
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltamem_agents.policy import redact_named, redact_secrets

LETTERS = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
BASE64 = LETTERS + "+/"
URLSAFE = LETTERS + "_-"
_RANDOM = random.Random(7)


def drawn(length: int, alphabet: str = LETTERS) -> str:
    return "".join(_RANDOM.choices(alphabet, k=length))


# A text with a hole, and the secret that goes there.
SECRETS = {
    "aws-id": ("use {} for S3", "AKIA" + drawn(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")),
    "aws-secret": ("AWS_SECRET_ACCESS_KEY={}", "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"),
    "github": ("my GitHub token is {}, thanks", "ghp_" + drawn(36)),
    "github-fine": ("{}", "github_pat_" + drawn(22) + "_" + drawn(59)),
    "gitlab": ("GITLAB_TOKEN={}", "glpat-" + drawn(20, URLSAFE)),
    "slack": ("slack: {}", "xoxb-123456789012-1234567890123-" + drawn(24)),
    "slack-webhook": ("https://hooks.slack.com/services/{}", "T0" + drawn(8) + "/B0" + drawn(8) + "/" + drawn(24)),
    "stripe": ("stripe.api_key = '{}'", "sk_live_" + drawn(24)),
    "google": ("https://maps.example/js?key={}&v=3", "AIza" + drawn(35, URLSAFE)),
    "openai": ("OPENAI {}", "sk-proj-" + drawn(60, URLSAFE)),
    "anthropic": ("{}\\n", "sk-ant-api03-" + drawn(90, URLSAFE) + "AA"),
    "huggingface": ("log in with\\n{}", "hf_" + drawn(34)),
    "npm": ("//registry.npmjs.org/:_authToken={}", "npm_" + drawn(36)),
    "pypi": ("password = {}", "pypi-AgEIcHlwaS5vcmc" + drawn(80, URLSAFE)),
    "sendgrid": ("({})", "SG." + drawn(22, URLSAFE) + "." + drawn(43, URLSAFE)),
    "langsmith": ("LANGSMITH_API_KEY={}", "lsv2_pt_" + drawn(32, HEX) + "_" + drawn(10, HEX)),
    "jwt": ("Authorization: Bearer {}", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + drawn(43, URLSAFE)),
    "private-key": (
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
        "MIIEvQIBADANBg" + drawn(50, BASE64),
    ),
    "private-key-json": (
        '"k": "-----BEGIN RSA PRIVATE KEY-----\\n{}\\n-----END RSA PRIVATE KEY-----\\n"',
        drawn(64, BASE64),
    ),
    "private-key-cut": ("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n", "b3BlbnNzaC1rZXk" + drawn(50, BASE64)),
    "url-password": ("https://bob:{}@example.com/x", "s3cr3tPw"),
    "postgres": ("postgresql+psycopg://app:{}@db.internal:5432/prod", "p@ssw0rd!"),
    "redis": ("redis://:{}@cache:6379/0", "redispw99"),
    "password-is": ("the password is {}", "hunter2"),
    "password-is-colon": ("My password is: {}.", "hunter22"),
    "password-word": ("the wifi password is {}", "swordfish"),
    "password-follows": ("log in with password {} please", "Tr0ub4dor&3"),
    "passphrase": ("the passphrase is {}", "correct horse battery staple"),
    "password-before": ("{} is my password", "Xk29!vbQ7"),
    "env": ("DB_PASSWORD={}", "letmein123"),
    "yaml": ("password: '{}'", "s3same!"),
    "setenv": ("setenv('DB_PASSWORD', '{}')", "geheim123"),
    "annotated": ('password: str = "{}"', "opensesame"),
    "ado": ("Server=db;User Id=sa;Password={};Encrypt=true", "Summer2024!"),
    "curl": ("curl -u admin:{} https://x.example", "opensesame1"),
    "flag": ("mysqldump --password {} db", "topsecret9"),
    "basic": ("Authorization: Basic {}", "dXNlcjpwYXNzd29yZDE="),
    "key-hex": ("api_key: {}", drawn(32, HEX)),
    "key-said": ("the API key for staging is {}", drawn(32, HEX).upper()),
    "key-before": ("Use {} as the api key", drawn(32)),
    "client-secret": ('"client_secret": "{}"', drawn(40)),
    "azure": ("AccountName=x;AccountKey={};EndpointSuffix=core", drawn(86, BASE64) + "=="),
    "telegram": ("bot {}", "123456789:AA" + drawn(33, URLSAFE)),
    "databricks": ("{}", "dapi" + drawn(32, HEX)),
    "aws-session": ("aws_session_token={}", "FwoGZXIvYXdzE" + drawn(900, BASE64)),
    "django": ("SECRET_KEY = '{}'", "django-insecure-#x8^kq2_w!p9z$vb4n@m7"),
    "xml": ("<password>{}</password>", "hunter2!"),
    "netrc": ("machine x login bob password {}", "hunter2"),
    "jdbc": ("jdbc:mysql://host/db?user=root&password={}&ssl=true", "Pa55word"),
    "password-for": ("password for the staging box: {}", "moonLight88"),
    "sshpass": ("sshpass -p '{}' ssh root@host", "s5hP4ss!"),
    "docker-login": ("docker login -u bob -p {} registry.example.org", "dckrPw7711"),
    "mysql": ("mysqldump -h db -u root -p{} shop", "r00tpw"),
    "npmrc": ("//registry.example.org/:_auth={}", "Ym9iOm15LW5wbS1wYXNzd29yZA=="),
    "vault": ("VAULT_TOKEN={}", "hvs." + drawn(90, URLSAFE)),
}
BENIGN = """\
request_id = "550e8400-e29b-41d4-a716-446655440000"
sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  dist/pkg-1.0.tar.gz
commit 3f2a9c1b8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a
docker.io/library/python@sha256:0b5ba3e6b4e2d1c0a9f8e7d6c5b4a3928170654321fedcba0987654321abcdef
data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==
from langchain_core.messages import HumanMessage, AIMessage, ToolMessage
import os; password = os.environ["DB_PASSWORD"]
token = get_token(user_id)
def reset_password(user: User, password: str) -> None:
tokenizer = AutoTokenizer.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
self.api_key = settings.openai_api_key
password = getpass.getpass("Password: ")
max_tokens=1024, token_count=2048
"integrity": "sha512-u5fUgSTrcyTPxvT+Nn8qWNtEKsRvmBaHkEXQkR8x3F3VvLcXZ6qbnYHe3pq6Yq3ZLKqGqyQ6LLP0jT8Wuh2Vww=="
the password is required and must be at least 12 characters
The password is stored hashed with bcrypt; the token is refreshed every 15 minutes.
password: str = Field(min_length=12)
secret_key = config.get("SECRET_KEY")
if password != confirm_password:
raise ValueError("password must not be empty")
Fix token refresh (commit 3f2a9c1b8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a)
api_key="YOUR_API_KEY"
docker login -u bob -p $REGISTRY_PASSWORD registry.example.org
mysql -u root -p shop < dump.sql
the password for staging: see the wiki
request_auth = make_auth(user)
docker run --rm -p 8080:80 login
export TOKEN=${GITHUB_TOKEN}
apiKey: process.env.API_KEY,
const token = req.headers.authorization.split(' ')[1];
SESSION_KEY_PREFIX = "session_v2_user"
The password is mandatory.
password_field = driver.find_element(By.ID, "password1")
parser.add_argument("--password", help="Password for the database")
model_name="gpt-4o-mini-2024-07-18", max_tokens=512
kubectl get secret my-secret-v2 -o yaml
git clone https://user@github.com/org/repo.git
postgresql://localhost:5432/app
postgres://user:password@localhost/db
cache_key = hashlib.md5(url.encode()).hexdigest()
pad_token="<|endoftext|>", eos_token_id=151645
import secrets; secrets.token_hex(16)
ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGq5k1n8l0yX7Jm0o7Zk8c3s9w2e4r5t6y7u8i9o0p1a deploy@host
test_token_refresh_rotates_keys_v2 PASSED
secret_name: my-app-secret-v2
GET /api/v1/tokens/550e8400-e29b-41d4-a716-446655440000 200
The pass rate is 98.5% over 1200 tests; pass 2 is slower.
cd $PWD && ls; pwd: /home/alice/projects/app1
session_key = f"session:{user_id}:v2"
the password is correct.
"password": "string"
password_reset_url = "https://example.com/reset?id=1234567890abcdef"
the api key rotation happens in rotate_keys_job_20240101.py
credentials.json is in ~/.config/gcloud/application_default_credentials.json""".splitlines()
# What a hostile text is made of: starts of every rule, keywords, separators, and what was redacted before.
PIECES = [
    *(template for template, _ in SECRETS.values()),
    *(secret for _, secret in SECRETS.values()),
    "password", "token=", "secret ", "api_key", " is ", ": ", "'", '"', "\\n", "\n", "=", "://", "@", "eyJ", "sk-",
    " ", "x", "-----BEGIN ", "PRIVATE KEY-----", "-----END", "[redacted:token:0123abcd]", "[redacted:",
    "\ufdd0", "İ", "\ud800", "7Qz",
]  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_replaced(kind: str) -> None:
    """Nothing of the secret is left, the text around it is, and the finding says where it was."""
    template, secret = SECRETS[kind]
    text = template.replace("{}", secret)
    redaction = redact_secrets(text)
    assert secret not in redaction.text
    (finding,) = redaction.findings
    start, end = finding.span
    assert secret in text[start:end]
    assert redaction.text == text[:start] + finding.placeholder + text[end:]


@pytest.mark.parametrize("line", BENIGN)
def test_benign_code_and_prose_are_left_alone(line: str) -> None:
    """What only looks like a secret, or speaks about one, stays."""
    assert redact_secrets(line).findings == ()


def test_many_secrets_in_one_text_are_all_replaced() -> None:
    """Secrets do not hide one another."""
    text = "\n".join(template.replace("{}", secret) for template, secret in SECRETS.values())
    redacted = redact_secrets(text).text
    assert [kind for kind, (_, secret) in SECRETS.items() if secret in redacted] == []


def test_placeholders_are_stable_and_tell_secrets_apart() -> None:
    """The same secret has the same placeholder, in another process as well; another secret has another one."""
    first, second = SECRETS["github"][1], "ghp_" + drawn(36)
    text = f"{first} {second} {first}"
    one, other, again = (finding.placeholder for finding in redact_secrets(text).findings)
    assert one == again
    assert one != other
    code = f"from deltamem_agents.policy import redact_secrets; print(redact_secrets({text!r}).text)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == redact_secrets(text).text


def test_a_guessable_secret_has_a_digest_only_under_a_key() -> None:
    """Whoever reads a placeholder cannot try passwords against it without the key."""
    text = "the password is hunter2"
    assert redact_secrets(text).text == "the password is [redacted:password]"
    assert (
        redact_secrets("the passphrase is correct horse battery staple").findings[0].placeholder
        == "[redacted:password]"
    )
    keyed = {redact_secrets(text, key=key).findings[0].placeholder for key in (b"one", b"two")}
    assert len(keyed) == 2
    assert redact_secrets(text, key=b"one").findings[0].placeholder in keyed


def test_kinds_name_what_was_found() -> None:
    """A reader of a placeholder learns what stood there, not what it was."""
    kinds = {name: redact_secrets(t.replace("{}", s)).findings[0].kind for name, (t, s) in SECRETS.items()}
    assert (kinds["github"], kinds["postgres"], kinds["url-password"], kinds["private-key"], kinds["env"]) == (
        "github-token",
        "connection-string",
        "url-password",
        "private-key",
        "password",
    )


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_redaction_never_raises_and_is_idempotent(text: str) -> None:
    """Any text can be redacted; redacting again changes nothing; spans are in order and do not overlap."""
    once = redact_secrets(text)
    twice = redact_secrets(once.text)
    assert twice.text == once.text
    assert twice.findings == ()
    edges = [edge for finding in once.findings for edge in finding.span]
    assert edges == sorted(edges)


@pytest.mark.parametrize("name", SECRETS)
def test_colours_of_a_terminal_do_not_save_a_secret(name: str) -> None:
    """Around it, around the sentence, or in its middle: what a person would see is what is read."""
    template, secret = SECRETS[name]
    plain = redact_secrets(template.replace("{}", secret))
    for coloured in (secret, secret[:5] + "\x1b[0m\x1b[1;32m" + secret[5:]):
        text = "\x1b[38;5;9m" + template.replace("{}", f"\x1b[1;31m{coloured}\x1b[0m") + "\x1b[K"
        redaction = redact_secrets(text)
        assert re.sub(r"\x1b\[[\d;]*[mK]", "", redaction.text) == plain.text
        assert redact_secrets(redaction.text).findings == ()
        assert all(text[start:end] not in redaction.text for start, end in (one.span for one in redaction.findings))


def test_a_lone_escape_does_not_hide_a_placeholder() -> None:
    """Together they look like a colour."""
    once = redact_secrets("password=\x1bXj4kTulip99 password=Xj4kTulip99")
    assert "Tulip" not in once.text
    assert redact_secrets(once.text).findings == ()


@given(st.lists(st.sampled_from([text for name, text in SECRETS.items()]), max_size=4), st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_surroundings_do_not_save_a_secret(secrets: list[tuple[str, str]], noise: str) -> None:
    """Whatever text is on the lines between, every secret goes."""
    text = f"\n{noise}\n".join(template.replace("{}", secret) for template, secret in secrets)
    redacted = redact_secrets(text).text
    assert [secret for _, secret in secrets if secret in redacted and secret not in noise] == []


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("password", 'hun"ter\\22', False),
        ("passphrase", "correct horse battery staple", False),
        ("client_secret", drawn(24), False),
        ("apiKey", drawn(32, HEX), False),
        ("note", "token=9f8A7b6C5d4E3f2A1b0C", False),
        ("password", "required", True),
        ("password_hint", "hunter2", True),
        ("cwd_pwd", "/home/bob/app2", True),
        ("token_count", "4096tokens99", True),
        ("city", "Oslo2024", True),
    ],
)
def test_a_name_in_a_mapping_tells_of_its_value(name: str, value: str, kept: bool) -> None:
    """A value under the name of a secret is one, whatever characters it has; redacting again changes nothing."""
    once = redact_named(name, value)
    assert (once == value) is kept
    assert kept or "[redacted:" in once
    assert redact_named(name, once) == once


def test_other_types_are_refused() -> None:
    """Bytes would come back unredacted if they were let through."""
    with pytest.raises(TypeError, match="takes a str, got bytes"):
        redact_secrets(b"password is hunter2")  # type: ignore[arg-type]
