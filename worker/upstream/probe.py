"""Asks the provider whether this key may call a model, by the cheapest call there is, and reads the answer.

Knows one question; who asks and when, and what follows, is not known here.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from worker.safety import classify
from worker.safety.access import OK, UNCLEAR, Diagnosis, Status, diagnosed
from worker.safety.stream import Closed, Rejected
from worker.safety.words import job_error
from worker.upstream.client import Provider

SECONDS: Final = 8.0
"""One probe takes no longer."""


class Probed(NamedTuple):
    """What one probe found, and the provider's name for the request."""

    model: str
    found: Diagnosis
    request_id: str | None

    @property
    def status(self) -> Status:
        """The answer in one word."""
        return self.found.status

    @property
    def advice(self) -> str:
        """What to do next, in one sentence."""
        return job_error(self.found.code).advice


async def probe(provider: Provider, model: str, request_id: str, seconds: float = SECONDS) -> Probed:
    """Whether `model` is listed for the provider's key; `request_id` is ours. Never raises, never longer than asked."""
    answer = await provider.listed(model, request_id, seconds)
    if isinstance(answer, Rejected):
        return Probed(model, diagnosed(classify.rejected(answer)), answer.request_id)
    if isinstance(answer, Closed):
        return Probed(model, diagnosed(classify.closed(answer)), None)
    return Probed(model, OK if answer.known else UNCLEAR, answer.request_id)
