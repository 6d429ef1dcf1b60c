"""Whether a webhook that came in is the provider's: its signature scheme is Standard Webhooks (wire.md section 8).

Our own few lines, because the SDK's and the package's take their time from the machine and raise five kinds of
exceptions on five kinds of rubbish. Must not know: HTTP, what an event means.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from worker.settings import webhook_key

TOLERANCE_SECONDS: Final = 300
"""How old, or how far ahead, a stamp may be; inclusive."""

_ID: Final = re.compile(r"[\x21-\x7e]{1,256}")
_STAMP: Final = re.compile(r"[0-9]{1,12}")
_MOST_CANDIDATES: Final = 20


class NotAuthentic(Exception):
    """The request is not one that the provider signed just now; its text says why, and quotes nothing of it."""


def verified(
    secrets: Sequence[str],
    ids: Sequence[str],
    stamps: Sequence[str],
    signatures: Sequence[str],
    body: bytes,
    now: datetime,
) -> str:
    """The webhook-id of an authentic request; `ids`, `stamps`, `signatures`: all that came under each header.

    Raises NotAuthentic. Any of the candidates in the signature header may match: the sender may be rotating its secret.
    """
    if not (len(ids) == len(stamps) == len(signatures) == 1):
        raise NotAuthentic("webhook-id, webhook-timestamp and webhook-signature must each be sent once")
    webhook_id, stamp = ids[0], stamps[0]
    if _ID.fullmatch(webhook_id) is None:
        raise NotAuthentic("webhook-id must be 1 to 256 visible ASCII characters")
    if _STAMP.fullmatch(stamp) is None:
        raise NotAuthentic("webhook-timestamp must be Unix seconds")
    age = int(now.timestamp()) - int(stamp)
    if abs(age) > TOLERANCE_SECONDS:
        raise NotAuthentic(f"webhook-timestamp is too {'old' if age > 0 else 'new'}")
    found = [part.removeprefix("v1,").encode("utf-8", "replace") for part in signatures[0].split()[:_MOST_CANDIDATES]]
    message = f"{webhook_id}.{stamp}.".encode() + body
    expected = [base64.b64encode(hmac.new(webhook_key(s), message, hashlib.sha256).digest()) for s in secrets]
    # each is compared with each, so that the time tells nothing of which one was near
    if not sum(hmac.compare_digest(one, other) for one in expected for other in found):
        raise NotAuthentic("no signature matches")
    return webhook_id
