"""The Python client of Vigil: `Vigil` is synchronous, `AsyncVigil` has the same methods for asyncio.

    with Vigil() as vigil:
        job = vigil.submit(model="gpt-5.6-sol", input="Why is the sky blue?")
        print(vigil.wait(job.id).output_text)

The distribution `vigil-client` installs this package as `vigil`; inside Vigil it is `worker.client`. It must import
nothing else of Vigil.
"""

from .async_client import AsyncVigil
from .errors import (
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
from .models import Event, Job
from .policy import OnDelay, Policy
from .requests import Filters, NewJob
from .responses import Explanation, JobGroup, Message, Model, Page, Status
from .retry import Retries
from .sync_client import Vigil

__all__ = [
    "ApiError",
    "AsyncVigil",
    "BadRequest",
    "Conflict",
    "ConnectionFailed",
    "Event",
    "Explanation",
    "Filters",
    "Forbidden",
    "Job",
    "JobGroup",
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
