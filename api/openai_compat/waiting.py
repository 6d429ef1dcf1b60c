"""Waits for the end of a job, for answers that keep their connection alive meanwhile."""

from __future__ import annotations

import asyncio
from typing import Final

from api.jobs.long_poll import wait_until
from api.runtime.context import AppContext
from api.web.problems import Problem
from worker.jobs.errors import StoreUnavailable
from worker.jobs.states import TERMINAL
from worker.store.jobs.stored_job import StoredJob

_STORE_RETRY_S: Final = 0.5


def shutting_down(headers: dict[str, str]) -> Problem:
    """Return the error for who waits in a process that stops; the retry of an SDK joins the job at another one."""
    detail = "This process is shutting down; the job goes on. Read it at GET /v1/jobs/{id}, by the id in X-Vigil-Job."
    return Problem(503, "shutting_down", detail, headers=headers)


async def wait_for_end(context: AppContext, stored: StoredJob, seconds: float) -> StoredJob:
    """Return the job once it is terminal, or after `seconds`; an outage of the store only makes it longer."""
    try:
        return await wait_until(context, stored, TERMINAL.__contains__, seconds)
    except StoreUnavailable:
        await asyncio.sleep(_STORE_RETRY_S)
        return stored
