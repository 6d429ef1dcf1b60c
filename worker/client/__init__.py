"""Vigil from Python: `Vigil` blocks, `AsyncVigil` awaits, both say the same.

    with Vigil() as vigil:
        job = vigil.submit(model="gpt-5.6-sol", input="Why is the sky blue?")
        print(vigil.wait(job.id).output_text)

The room knows the API and nothing behind it: no Redis, no provider.
"""

from worker.client.async_client import AsyncVigil
from worker.client.errors import (
    ApiError,
    BadRequest,
    Conflict,
    ConnectionFailed,
    Forbidden,
    Misconfigured,
    NotFound,
    RateLimited,
    ServerError,
    StillRunning,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unreadable,
    VigilError,
)
from worker.client.models import Event, Job
from worker.client.requests import Filters, NewJob
from worker.client.responses import Message, Model, Page, Status
from worker.client.retry import Retries
from worker.client.sync_client import Vigil
from worker.jobs.spec import OnDelay, Policy

__all__ = [
    "ApiError",
    "AsyncVigil",
    "BadRequest",
    "Conflict",
    "ConnectionFailed",
    "Event",
    "Filters",
    "Forbidden",
    "Job",
    "Message",
    "Misconfigured",
    "Model",
    "NewJob",
    "NotFound",
    "OnDelay",
    "Page",
    "Policy",
    "RateLimited",
    "Retries",
    "ServerError",
    "Status",
    "StillRunning",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
    "Unreadable",
    "Vigil",
    "VigilError",
]
