"""Verifies the signature of the provider's webhooks, which follow Standard Webhooks (wire.md section 8).

Not by the SDK or the package, because both read the machine's clock and raise five kinds of exceptions on invalid
input. It must not depend on HTTP or on the meaning of an event.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from worker.setting_values import webhook_key

TOLERANCE_SECONDS: Final = 300
"""The maximum age, past or future, of a timestamp in seconds; inclusive."""

_ID: Final = re.compile(r"[\x21-\x7e]{1,256}")
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9+/]{43}=")
_MAX_SIGNATURES: Final = 20


class NotAuthentic(Exception):
    """The provider did not sign this request recently; the message says why and quotes nothing of it."""


def verify(
    secrets: Sequence[str],
    ids: Sequence[str],
    timestamps: Sequence[str],
    signatures: Sequence[str],
    body: bytes,
    now: datetime,
) -> str:
    """Return the webhook-id of an authentic request; `ids`, `timestamps`, `signatures`: all values of each header.

    Raise NotAuthentic for any other. Any of the candidates in the signature header may match: the sender may be
    rotating its secret.
    """
    webhook_id, timestamp, found = check_headers(ids, timestamps, signatures, now)
    message = f"{webhook_id}.{timestamp}.".encode() + body
    expected = [base64.b64encode(hmac.new(webhook_key(s), message, hashlib.sha256).digest()) for s in secrets]
    # every pair is compared, so that the time taken reveals nothing
    if not sum(hmac.compare_digest(one, other) for one in expected for other in found):
        raise NotAuthentic("no signature matches")
    return webhook_id


def check_headers(
    ids: Sequence[str], timestamps: Sequence[str], signatures: Sequence[str], now: datetime
) -> tuple[str, str, list[bytes]]:
    """Return (webhook-id, webhook-timestamp, the signatures) of a request whose body is not needed yet.

    Raise NotAuthentic if no body could make it authentic: a header is missing, malformed, or too old or new.
    """
    if not (len(ids) == len(timestamps) == len(signatures) == 1):
        raise NotAuthentic("webhook-id, webhook-timestamp and webhook-signature must each be sent once")
    webhook_id, timestamp = ids[0], timestamps[0]
    if _ID.fullmatch(webhook_id) is None:
        raise NotAuthentic("webhook-id must be 1 to 256 visible ASCII characters")
    if _TIMESTAMP.fullmatch(timestamp) is None:
        raise NotAuthentic("webhook-timestamp must be Unix seconds")
    age = int(now.timestamp()) - int(timestamp)
    if abs(age) > TOLERANCE_SECONDS:
        raise NotAuthentic(f"webhook-timestamp is too {'old' if age > 0 else 'new'}")
    sent = [part.removeprefix("v1,") for part in signatures[0].split()[:_MAX_SIGNATURES]]
    found = [one.encode() for one in sent if _SIGNATURE.fullmatch(one)]
    if not found:
        raise NotAuthentic("webhook-signature must hold the base64 of an HMAC-SHA-256, such as v1,K5oZ…=")
    return webhook_id, timestamp, found
