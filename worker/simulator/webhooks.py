"""Sends webhooks: Standard Webhooks, signed by hand, with the variants of wire.md T20.

It must not depend on responses; it is told a type and data. The signature is written here again on purpose.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
import uuid
from typing import Any

import aiohttp
from yarl import URL

from .browser_guard import is_loopback
from .pace import Pace
from .wire import Json, dumps

VARIANTS = (
    "plain",
    "duplicate",
    "two_signatures",
    "old_stamp",
    "wrong_signature",
    "non_ascii_signature",
    "missing_header",
    "unknown_type",
    "reserialised",
)
_TRIES = 3
_AGAIN = frozenset({429, 500, 502, 503, 504})


class WebhookError(ValueError):
    """The event can't be sent as asked; its text says why."""


def sign(secret: str, message_id: str, stamp: int, body: bytes) -> str:
    """Return `v1,<base64>`: HMAC-SHA256 over `{id}.{stamp}.{body}`; a secret after `whsec_` is base64."""
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    digest = hmac.new(key, f"{message_id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class Webhooks:
    """The sender: one URL, one secret, a record of what was sent."""

    def __init__(self, url: str | None, secret: str | None, pace: Pace) -> None:
        """Keep the target; without a URL nothing is ever sent."""
        self.url, self.secret, self._pace = url, secret or "", pace
        self.sent: list[Json] = []
        self._session: aiohttp.ClientSession | None = None

    def check(self, variant: str, url: str | None) -> str:
        """Return where an event is sent; raise WebhookError unless that is the set URL or one on this machine."""
        target = url or self.url
        if not target:
            raise WebhookError("No webhook URL: start the simulator with --webhook-url, or give `url`.")
        if variant not in VARIANTS:
            raise WebhookError(f"Unknown variant; known: {', '.join(VARIANTS)}.")
        try:
            parsed = URL(target)
        except ValueError:
            parsed = URL()
        if target != self.url and not (parsed.scheme in {"http", "https"} and is_loopback(parsed.host)):
            raise WebhookError("The `url` must be an http address on this machine: 127.0.0.1, ::1 or localhost.")
        return target

    async def emit(self, kind: str, data: Json, variant: str = "plain", url: str | None = None) -> list[Json]:
        """Send one event in a variant; return a record per delivery: type, webhook_id, status (None = no answer)."""
        target = self.check(variant, url)
        if variant == "unknown_type":
            kind = "response.something_new"
        now = int(time.time())
        event = {"object": "event", "id": f"evt_{uuid.uuid4().hex}", "type": kind, "created_at": now, "data": data}
        body, headers = self._request(event, variant, now)
        out = [await self._deliver(target, body, headers, kind)]
        if variant == "duplicate":
            out.append(await self._deliver(target, body, headers, kind))
        self.sent += out
        del self.sent[:-1000]
        return out

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _request(self, event: Json, variant: str, now: int) -> tuple[bytes, dict[str, str]]:
        body = dumps(event).encode()
        stamp = now - 301 if variant == "old_stamp" else now
        message_id = f"wh_{uuid.uuid4().hex}"
        signature = sign(self.secret, message_id, stamp, body)
        match variant:
            case "two_signatures":
                signature = f"{sign('an-older-secret', message_id, stamp, body)} {signature}"
            case "wrong_signature":
                signature = sign("a-wrong-secret", message_id, stamp, body)
            case "non_ascii_signature":
                signature = "v1,sígnätüré"
            case "reserialised":
                body = dumps(dict(reversed(event.items()))).encode()
            case _:
                pass
        headers = {
            "content-type": "application/json",
            "user-agent": "OpenAI/1.0 (simulated)",
            "webhook-id": message_id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": signature,
        }
        if variant == "missing_header":
            del headers["webhook-signature"]
        return body, headers

    async def _deliver(self, url: str, body: bytes, headers: dict[str, str], kind: str) -> Json:
        """POST until a 2xx or a definite 4xx, a few times with back-off; redirects are failures."""
        status: int | None = None
        for attempt in range(_TRIES):
            if attempt:
                await self._pace.sleep(0.5 * 2**attempt)
            status = await self._post(url, body, headers)
            if status is not None and status not in _AGAIN:
                break
        record: dict[str, Any] = {"type": kind, "webhook_id": headers["webhook-id"], "status": status}
        return record

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> int | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
