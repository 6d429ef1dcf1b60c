"""Removes secrets from a person's text before it is sent out; reports the detectors that found one, never the value.

Uses the patterns of detect-secrets (without its plugins that guess from entropy, which flag plain words), each extended
to the full token, and own patterns for what it does not know. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from typing import Final, NamedTuple

from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.basic_auth import BasicAuthDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.npm import NpmDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector

_PLUGINS: Final[tuple[RegexBasedDetector, ...]] = (
    AWSKeyDetector(),
    AzureStorageKeyDetector(),
    BasicAuthDetector(),
    DiscordBotTokenDetector(),
    GitHubTokenDetector(),
    GitLabTokenDetector(),
    JwtTokenDetector(),
    MailchimpDetector(),
    NpmDetector(),
    PypiTokenDetector(),
    SendGridDetector(),
    SlackDetector(),
    SquareOAuthDetector(),
    StripeDetector(),
    TelegramBotTokenDetector(),
    TwilioKeyDetector(),
)

# in this order: what spans lines first, what is vague last
_OWN_PATTERNS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    (
        "Private Key",
        re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY.*?(?:-----END [A-Z0-9 ]{0,50}-----|\Z)", re.DOTALL),
    ),
    ("Vigil API Key", re.compile(r"vgl_[A-Za-z0-9_-]{8,}")),
    ("Webhook Secret", re.compile(r"whs[ek]c?_[A-Za-z0-9+/=_-]{8,}")),
    ("OpenAI Token", re.compile(r"\bsk-[A-Za-z0-9_-]{12,}")),
    ("Google API Key", re.compile(r"\bAIza[A-Za-z0-9_-]{30,}")),
    ("Authorization", re.compile(r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{12,}")),
    (
        "Secret Keyword",
        re.compile(r"(?i)\b(?:password|passwd|passphrase|secret|api[_-]?key|token)\b\s*[:=]\s*[^\s,;]{3,}"),
    ),
    ("E-mail Address", re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")),
)


class Redaction(NamedTuple):
    """The number of findings of one detector."""

    detector: str
    times: int


class Redacted(NamedTuple):
    """A text with its secrets replaced, and the findings."""

    text: str
    found: tuple[Redaction, ...] = ()


def redact(text: str) -> Redacted:
    """Replace each secret in `text` by `[redacted: <detector>]`; invisible characters are removed first."""
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cf"})
    found: Counter[str] = Counter()
    for name, pattern in _OWN_PATTERNS[:-2]:
        text, count = pattern.subn(_placeholder(name), text)
        found[name] += count
    for plugin in _PLUGINS:
        for pattern in plugin.denylist:
            text, count = _with_rest_of_token(pattern).subn(_placeholder(plugin.secret_type), text)
            found[plugin.secret_type] += count
    for name, pattern in _OWN_PATTERNS[-2:]:
        text, count = pattern.subn(_placeholder(name), text)
        found[name] += count
    return Redacted(text, tuple(Redaction(name, count) for name, count in sorted(found.items()) if count))


@cache
def _with_rest_of_token(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """Return the pattern extended to the rest of the token.

    A plugin may match only a part of the secret, such as the `ghp` of a GitHub token, and leave the rest in the text.
    """
    return re.compile(f"(?:{pattern.pattern})[A-Za-z0-9_+/=-]*(?:[.][A-Za-z0-9_+/=-]+)*", pattern.flags)


def _placeholder(name: str) -> str:
    return f"[redacted: {name}]"
