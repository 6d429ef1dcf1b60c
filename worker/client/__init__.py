"""Vigil from Python: `Vigil` blocks, `AsyncVigil` awaits, both say the same.

    with Vigil() as vigil:
        job = vigil.submit(model="gpt-5.6-sol", input="Why is the sky blue?")
        print(vigil.wait(job.id).output_text)

The room knows the API and nothing behind it: no Redis, no provider.
"""

from worker.client.answers import Message, Model, Page, Status
from worker.client.asks import Filters, NewJob
from worker.client.awaiting import AsyncVigil
from worker.client.blocking import Vigil
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
from worker.client.retries import Retries
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
