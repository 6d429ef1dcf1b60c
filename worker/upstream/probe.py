"""Asks the provider whether this key may call a model, by the cheapest call there is, and reads the answer.

Knows one question; who asks and when, and what follows, is not known here.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from worker.safety import classify
from worker.safety.access import NOT_LISTED, NOT_OFFERED, OK, UNCLEAR, AccessStatus, Diagnosis, diagnose
from worker.safety.messages import job_error
from worker.safety.stream import Closed, Rejected
from worker.upstream.client import ModelPage, Provider, ProviderPage
from worker.upstream.tolerant_fields import mapping

TIMEOUT_S: Final = 8.0
"""One probe takes no longer."""


class ProbeResult(NamedTuple):
    """What one probe found, and the provider's name for the request."""

    model: str
    found: Diagnosis
    request_id: str | None

    @property
    def status(self) -> AccessStatus:
        """The answer in one word."""
        return self.found.status

    @property
    def advice(self) -> str:
        """What to do next, in one sentence."""
        return job_error(self.found.code).advice


async def probe(provider: Provider, model: str, request_id: str, seconds: float = TIMEOUT_S) -> ProbeResult:
    """Whether `model` is listed for the provider's key; `request_id` is ours. Never raises, never longer than asked."""
    until = asyncio.get_running_loop().time() + seconds
    answer = await provider.get_model(model, request_id, seconds)
    if isinstance(answer, Closed):
        return ProbeResult(model, diagnose(classify.closed(answer)), None)
    found = _diagnosis_of(answer)
    if found == NOT_OFFERED or (isinstance(answer, ModelPage) and not answer.known):
        left = max(until - asyncio.get_running_loop().time(), 0.0)
        told = await _probe_by_list(provider, model, f"{request_id}.list", left)
        found = told if found == NOT_OFFERED or told == OK else found  # a page of another kind denies nothing
    return ProbeResult(model, found, answer.request_id)


def _diagnosis_of(answer: ModelPage | Rejected) -> Diagnosis:
    if isinstance(answer, Rejected):
        return diagnose(classify.rejected(answer))
    return OK if answer.known else UNCLEAR


async def _probe_by_list(provider: Provider, model: str, request_id: str, seconds: float) -> Diagnosis:
    """What the list of all models says, where one model has no page: compatible servers have the one or the other."""
    answer = await provider.get_page("/models", request_id, seconds)
    names = model_names(answer.body) if isinstance(answer, ProviderPage) else None
    if not names:  # an empty list is that of a server which loads a model when it is first asked
        return NOT_OFFERED
    return OK if model in names else NOT_LISTED


def model_names(body: object) -> frozenset[str] | None:
    """The names in a page of `GET /models`, or None when it is no such page."""
    rows = mapping(body).get("data")
    if type(rows) is not list:
        return None
    return frozenset(row["id"] for row in rows if type(row) is dict and type(row.get("id")) is str)
