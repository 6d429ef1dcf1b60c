"""Whether the client of a create has its answer, or has gone without: then its SDK may send the same request again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from starlette.types import Message, Scope

from worker.store.jobs.stored_job import Caller

_KEY: Final = "vigil.caller"
_RETRIED: Final = frozenset({408, 409, 429})
"""Statuses that SDKs of OpenAI retry, beside those from 500 on."""
_HEAD_ARRIVES_S: Final = 1.0
"""A stream that was open for longer has arrived: an SDK sends no request again of whose stream it has the head."""


@dataclass
class OpenCall:
    """A create whose client waits for the answer: who it is, and what was sent to it."""

    app: str
    caller: Caller
    job_id: str = ""
    """"" until there is a job."""
    whole: bool = False
    """The last byte was sent of an answer after which an SDK sends nothing again."""
    _final: bool = False
    _stream_since: float | None = None

    def note(self, message: Message, now: float) -> None:
        """Note a part of the response that is about to be sent."""
        if message["type"] == "http.response.start":
            fields = dict(message.get("headers", ()))
            retried = message["status"] in _RETRIED or message["status"] >= 500  # noqa: PLR2004
            self._final = not retried or fields.get(b"x-should-retry") == b"false"
            if fields.get(b"content-type", b"").startswith(b"text/event-stream"):
                self._stream_since = now
        elif not message.get("more_body"):
            self.whole = self._final

    def streamed(self, now: float) -> bool:
        """Return whether the client must have received the head of a stream."""
        return self._stream_since is not None and now - self._stream_since > _HEAD_ARRIVES_S


def attach_call(scope: Any, call: OpenCall) -> None:
    """Attach the call to its request."""
    scope[_KEY] = call


def call_of(scope: Scope) -> OpenCall | None:
    """Return the call of the request, or None if it is no create of an SDK."""
    found: OpenCall | None = scope.get(_KEY)
    return found
