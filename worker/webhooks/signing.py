"""Makes the headers of Standard Webhooks: one signature per active secret over the exact bytes that are sent.

The package signs naive local times and bytes wrongly (measured), so it is only ever given UTC and text.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from math import floor

from standardwebhooks.webhooks import Webhook


def new_secret(random_bytes: bytes) -> str:
    """Return a new secret: `whsec_` and 32 random bytes in base64."""
    return "whsec_" + base64.b64encode(random_bytes).decode()


def signed_headers(message_id: str, at: datetime, body: str, secrets: Sequence[str]) -> dict[str, str]:
    """Return the three headers of one try at `at`; `secrets` are all active ones, newest first."""
    at = at.astimezone(UTC)
    signatures = [Webhook(secret).sign(msg_id=message_id, timestamp=at, data=body) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(floor(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
