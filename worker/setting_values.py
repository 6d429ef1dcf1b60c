"""What values of settings must look like, for everything that reads one: addresses, secrets, keys. Pure."""

from __future__ import annotations

import base64
import re
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

MIN_SECRET_BYTES: Final = 24
_ENCRYPTION_KEY: Final = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]=?")  # urlsafe base64 of 32 bytes
_WEBHOOK_PREFIX: Final = "whsec_"


def long_enough(value: SecretStr, key: bytes, cure: str) -> SecretStr:
    """Return the value of a secret. Raises ValueError when its key is so short that it could be guessed."""
    if len(key) < MIN_SECRET_BYTES:
        raise ValueError(f"is only {len(key)} bytes long, a secret has at least {MIN_SECRET_BYTES}; {cure}")
    return value


def is_http(text: str) -> bool:
    """Return whether this is an http:// or https:// address with a host, and with a port that exists if it has one."""
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number or too large, brackets that hold no IPv6 address
        return False


def is_encryption_key(text: str) -> bool:
    """Return whether this is urlsafe base64 of 32 bytes."""
    return _ENCRYPTION_KEY.fullmatch(text) is not None


def webhook_key(secret: str) -> bytes:
    """Return the key in a webhook secret: `whsec_` and base64, or any other text as it is.

    Raises binascii.Error if the base64 is invalid.
    """
    if secret.startswith(_WEBHOOK_PREFIX):
        return base64.b64decode(secret.removeprefix(_WEBHOOK_PREFIX), validate=True)
    return secret.strip().encode()
