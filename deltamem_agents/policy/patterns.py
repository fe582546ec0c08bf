"""List the formats that providers document for their tokens.

To stay linear, a rule is tried only where one of its literal starts occurs, every repetition is bounded and possessive,
and no token begins inside a word or inside base64.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["TOKEN_RULES", "TokenRule"]

# Where a token can begin: not inside a word, base64 or what has been redacted (U+FDD0), except after "\\n" in JSON.
_START = r"(?:(?<![A-Za-z0-9+/_\ufdd0-])|(?<=\\[nrt]))"
_WORD = "[A-Za-z0-9]"
_URLSAFE = "[A-Za-z0-9_-]"
_HEX = "[0-9a-f]"


@dataclass(frozen=True, slots=True)
class TokenRule:
    """Name a kind of token, the literals it starts with, and its pattern; group 1, if any, is the secret.

    inside: the literals are somewhere in the token, and the pattern finds its start.
    """

    kind: str
    literals: tuple[str, ...]
    pattern: re.Pattern[str]
    inside: bool = False

    def find(self, text: str, literal: str) -> Iterator[tuple[int, int]]:
        """Yield the spans of tokens of this kind that begin with, or hold, one of its literals."""
        group = self.pattern.groups
        if self.inside:
            yield from (match.span(group) for match in self.pattern.finditer(text))
            return
        at = text.find(literal)
        while at >= 0:
            match = self.pattern.match(text, at)
            if match is not None:
                yield match.span(group)
            at = text.find(literal, at + 1 if match is None else match.end())


def _rule(kind: str, pattern: str, *literals: str) -> TokenRule:
    return TokenRule(kind, literals, re.compile(_START + pattern))


def _prefixed(kind: str, prefix: str, body: str) -> TokenRule:
    """Make the rule of a token that is a literal prefix and a run of characters."""
    return _rule(kind, re.escape(prefix) + body, prefix)


def _webhook(kind: str, host: str, path: str) -> TokenRule:
    """Make the rule of a URL whose path is the secret."""
    return TokenRule(kind, (host,), re.compile(re.escape(host) + path))


def _inside(kind: str, pattern: str, literal: str) -> TokenRule:
    return TokenRule(kind, (literal,), re.compile(_START + pattern), inside=True)


TOKEN_RULES: tuple[TokenRule, ...] = (
    _rule("aws-access-key-id", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])", "AKIA", "ASIA", "ABIA", "ACCA"),
    _rule("github-token", r"gh[pousr]_[A-Za-z0-9]{36,255}+", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _prefixed("github-token", "github_pat_", r"\w{36,255}+"),
    _rule(
        "gitlab-token",
        r"gl(?:pat|ptt|dt|rt|soat|ft|imt|agent|cbt|oas)-[\w.-]{20,300}+",
        "glpat-",
        "glptt-",
        "gldt-",
        "glrt-",
        "glsoat-",
        "glft-",
        "glimt-",
        "glagent-",
        "glcbt-",
        "gloas-",
    ),
    _rule("slack-token", r"xox[abcepors](?:\.xox[abp])?-[A-Za-z0-9-]{10,2000}+", "xox"),
    _prefixed("slack-token", "xapp-", r"\d-[A-Z0-9]{5,20}-\d{5,20}-[A-Za-z0-9]{20,100}+"),
    _webhook("slack-webhook", "hooks.slack.com/", r"(?:services|workflows|triggers)/([A-Za-z0-9+/]{30,100}+)"),
    _webhook("discord-webhook", "/api/webhooks/", r"(\d{15,21}/[\w-]{60,80}+)"),
    _webhook("teams-webhook", "webhook.office.com/webhookb2/", r"([\w@/-]{60,250}+)"),
    _rule(
        "openai-key",
        r"sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,2000}+",
        "sk-proj-",
        "sk-svcacct-",
        "sk-admin-",
        "sk-None-",
    ),
    _prefixed("anthropic-key", "sk-ant-", r"[a-z0-9]{3,10}-[A-Za-z0-9_-]{20,2000}+"),
    _prefixed("openrouter-key", "sk-or-v1-", r"[0-9a-f]{64}"),
    _prefixed("api-key", "sk-", r"(?=[A-Za-z-]{0,40}+\d)[A-Za-z0-9]{32,100}+"),
    _prefixed("google-api-key", "AIza", _URLSAFE + r"{35}(?![A-Za-z0-9+/_-])"),
    _prefixed("google-oauth-token", "ya29.", _URLSAFE + "{20,2048}+"),
    _prefixed("google-oauth-secret", "GOCSPX-", _URLSAFE + "{28}"),
    _prefixed("huggingface-token", "hf_", _WORD + "{30,60}+"),
    _prefixed("huggingface-token", "api_org_", _WORD + "{30,60}+"),
    _rule(
        "stripe-key",
        r"[sr]k_(?:live|test|prod)_[A-Za-z0-9]{10,200}+",
        "sk_live_",
        "rk_live_",
        "sk_test_",
        "rk_test_",
        "sk_prod_",
        "rk_prod_",
    ),
    _prefixed("stripe-webhook-secret", "whsec_", r"[A-Za-z0-9+/=]{24,100}+"),
    _prefixed("npm-token", "npm_", _WORD + "{36}"),
    _prefixed("pypi-token", "pypi-AgE", _URLSAFE + "{50,1000}+"),
    _prefixed("rubygems-token", "rubygems_", _HEX + "{48}"),
    _prefixed("docker-token", "dckr_pat_", _URLSAFE + "{27,64}+"),
    _prefixed("docker-token", "dckr_oat_", _URLSAFE + "{27,64}+"),
    _rule("langsmith-key", r"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}", "lsv2_"),
    _prefixed("sendgrid-key", "SG.", r"[A-Za-z0-9_-]{20,24}+\.[A-Za-z0-9_-]{39,50}+"),
    _rule("twilio-key", r"SK[0-9a-f]{32}(?![A-Za-z0-9])", "SK"),
    _prefixed("mailgun-key", "key-", _HEX + r"{32}(?![A-Za-z0-9])"),
    _inside("mailchimp-key", r"[0-9a-f]{32}-us\d{1,2}(?![A-Za-z0-9])", "-us"),
    _prefixed("brevo-key", "xkeysib-", r"[0-9a-f]{64}-[A-Za-z0-9]{16}"),
    _inside("telegram-token", r"\d{8,10}:AA[A-Za-z0-9_-]{32,34}+", ":AA"),
    _rule("digitalocean-token", r"do[opr]_v1_[0-9a-f]{64}", "dop_v1_", "doo_v1_", "dor_v1_"),
    _prefixed("databricks-token", "dapi", r"[0-9a-f]{32}(?:-\d)?(?![A-Za-z0-9])"),
    _rule("vault-token", r"hv[sbr]\.[A-Za-z0-9_-]{24,300}+", "hvs.", "hvb.", "hvr."),
    _inside("terraform-token", r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70}+", ".atlasv1."),
    _prefixed("linear-key", "lin_api_", _WORD + "{40}"),
    _prefixed("notion-token", "ntn_", _WORD + "{40,50}+"),
    _prefixed("figma-token", "figd_", _URLSAFE + "{40,60}+"),
    _prefixed("postman-key", "PMAK-", r"[0-9a-f]{24}-[0-9a-f]{34}"),
    _rule("grafana-token", r"glsa_[A-Za-z0-9]{32}_[0-9A-Fa-f]{8}", "glsa_"),
    _prefixed("grafana-token", "glc_", r"[A-Za-z0-9+/]{32,400}+={0,2}"),
    _prefixed("newrelic-key", "NRAK-", "[A-Z0-9]{27}"),
    _rule("sentry-token", r"sntry[su]_[A-Za-z0-9+/=_]{40,500}+", "sntrys_", "sntryu_"),
    _rule("doppler-token", r"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,44}", "dp."),
    _rule("shopify-token", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}", "shpat_", "shpca_", "shppa_", "shpss_"),
    _rule("square-token", r"(?:EAAA[\w-]{56,64}+|sq0[a-z]{3}-[\w-]{22,43}+)", "EAAA", "sq0"),
    _rule("planetscale-token", r"pscale_(?:tkn|pw|oauth)_[\w.=-]{32,64}+", "pscale_"),
    _rule("supabase-token", r"(?:sbp_[0-9a-f]{40}|sb_secret_[\w-]{20,60}+)", "sbp_", "sb_secret_"),
    _prefixed("groq-key", "gsk_", _WORD + "{40,60}+"),
    _prefixed("xai-key", "xai-", _WORD + "{60,100}+"),
    _prefixed("replicate-token", "r8_", _WORD + "{37,40}+"),
    _prefixed("perplexity-key", "pplx-", _WORD + "{40,60}+"),
    _prefixed("tavily-key", "tvly-", _URLSAFE + "{20,60}+"),
    _rule("tailscale-key", r"tskey-[a-z]{3,12}-[A-Za-z0-9-]{10,80}+", "tskey-"),
    _prefixed("netlify-token", "nfp_", _WORD + "{36,50}+"),
    _rule("cloudflare-key", r"v1\.0-[0-9a-f]{24}-[0-9a-f]{140,160}+", "v1.0-"),
    _rule("fly-token", r"(?:fo1_[\w-]{43}|fm[12][ar]?_[A-Za-z0-9+/]{60,2000}+={0,3})", "fo1_", "fm1", "fm2"),
    _rule("atlassian-token", r"(?:ATATT3|ATCTT3|ATBB)[A-Za-z0-9_=-]{20,300}+", "ATATT3", "ATCTT3", "ATBB"),
    _rule("airtable-token", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}", "pat"),
    _rule("artifactory-token", r"(?:AKCp[A-Za-z0-9]{60,80}+|cmVmd[A-Za-z0-9]{50,70}+)", "AKCp", "cmVmd"),
    _prefixed("pulumi-token", "pul-", _HEX + "{40}"),
    _prefixed("alibaba-key-id", "LTAI", _WORD + r"{17,21}(?![A-Za-z0-9])"),
    _prefixed("1password-token", "ops_eyJ", r"[A-Za-z0-9+/]{200,4000}+={0,3}"),
    _prefixed("age-secret-key", "AGE-SECRET-KEY-1", "[A-Z0-9]{58}"),
    _prefixed("dynatrace-token", "dt0c01.", r"[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    _rule("mapbox-token", r"sk\.eyJ[\w-]{40,200}+\.[\w-]{20,30}+", "sk.eyJ"),
    _rule("dropbox-token", r"sl\.(?:u\.)?[\w-]{100,1500}+", "sl."),
    _prefixed("easypost-key", "EZAK", _WORD + r"{54}(?![A-Za-z0-9])"),
    _rule("sourcegraph-token", r"sgp_(?:[0-9a-f]{16}_|local_)?[0-9a-f]{40}", "sgp_"),
    _prefixed("prefect-key", "pnu_", _WORD + "{36}"),
    _prefixed("openshift-token", "sha256~", _URLSAFE + "{43}"),
    _webhook("azure-storage-key", "AccountKey=", r"([A-Za-z0-9+/]{86}==)"),
    _inside("azure-client-secret", r"[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31,34}+", "Q~"),
    _webhook("azure-sas-signature", "sig=", r"([A-Za-z0-9%+/=]{40,100}+)"),
    _rule("json-web-token", r"eyJ[A-Za-z0-9_-]{8,4096}+\.eyJ[A-Za-z0-9_-]{8,8192}+\.[A-Za-z0-9_-]{10,2048}+", "eyJ"),
)
