"""Probes whether this key may call a model, by the cheapest request there is, and interprets the answer."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Final, NamedTuple

from worker.safety import classify
from worker.safety.access import NOT_LISTED, NOT_OFFERED, OK, UNCLEAR, AccessStatus, Diagnosis, diagnose
from worker.safety.messages import job_error
from worker.safety.stream import Closed, Rejected
from worker.upstream.client import ModelPage, Provider, ProviderPage
from worker.upstream.tolerant_fields import day, mapping

TIMEOUT_S: Final = 8.0
"""The limit for one probe."""


class ProbeResult(NamedTuple):
    """The result of one probe, and the provider's id of the request."""

    model: str
    found: Diagnosis
    request_id: str | None
    shutdown_date: date | None = None

    @property
    def status(self) -> AccessStatus:
        """Return the status of the access."""
        return self.found.status

    @property
    def advice(self) -> str:
        """Return what to do next, in one sentence."""
        return job_error(self.found.code).advice


async def probe(provider: Provider, model: str, request_id: str, seconds: float = TIMEOUT_S) -> ProbeResult:
    """Probe `model`; `request_id` is Vigil's own. Never raises and takes no longer than `seconds`."""
    until = asyncio.get_running_loop().time() + seconds
    answer = await provider.get_model(model, request_id, seconds)
    if isinstance(answer, Closed):
        return ProbeResult(model, diagnose(classify.closed(answer)), None)
    found = _diagnosis_of(answer)
    if found == NOT_OFFERED or (isinstance(answer, ModelPage) and not answer.known):
        remaining = max(until - asyncio.get_running_loop().time(), 0.0)
        by_list = await _probe_by_list(provider, model, f"{request_id}.list", remaining)
        found = by_list if found == NOT_OFFERED or by_list == OK else found  # a page of another kind is no denial
    return ProbeResult(model, found, answer.request_id, getattr(answer, "shutdown_date", None))


def _diagnosis_of(answer: ModelPage | Rejected) -> Diagnosis:
    if isinstance(answer, Rejected):
        return diagnose(classify.rejected(answer))
    return OK if answer.known else UNCLEAR


async def _probe_by_list(provider: Provider, model: str, request_id: str, seconds: float) -> Diagnosis:
    """Diagnose by the list of all models: compatible servers have either that or a page for each model."""
    answer = await provider.get_page("/models", request_id, seconds)
    names = model_names(answer.body) if isinstance(answer, ProviderPage) else None
    if not names:  # a server that loads models on demand has an empty list
        return NOT_OFFERED
    return OK if model in names else NOT_LISTED


def model_names(body: object) -> frozenset[str] | None:
    """Return the names in a page of `GET /models`, or None if it is no such page."""
    rows = mapping(body).get("data")
    if type(rows) is not list:
        return None
    return frozenset(row["id"] for row in rows if type(row) is dict and type(row.get("id")) is str)


def shutdown_dates(body: object) -> dict[str, date | None]:
    """Return by model the day on which it will shut down, None where none is announced, from a page of the list."""
    rows = mapping(body).get("data")
    return {
        row["id"]: day(row.get("shutdown_date"))
        for row in (rows if type(rows) is list else ())
        if type(row) is dict and type(row.get("id")) is str
    }
