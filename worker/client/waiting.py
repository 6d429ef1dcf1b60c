"""The types of what jobs wait for that have not started: places in the queue, and limits that keep them."""

from __future__ import annotations

from datetime import datetime

from .api_model import ApiModel, Open
from .enums import WaitReason


class QueueEta(ApiModel):
    """In how many seconds a waiting job probably starts, and from how many measured calls that is estimated."""

    SHOWN = ("p50_seconds", "p90_seconds")
    p50_seconds: float
    p90_seconds: float
    samples: int = 0


class QueuePlace(ApiModel):
    """Where a queued job stands among its app's waiting jobs, from 1."""

    SHOWN = ("position",)
    position: int
    eta: QueueEta | None = None


class WaitingFor(ApiModel):
    """The limit that keeps a waiting job, of which account and model, and about when its turn comes."""

    SHOWN = ("reason", "model", "until")
    reason: Open[WaitReason] = ""
    account: str | None = None
    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Meter(ApiModel):
    """What one model of a provider account may still be called now."""

    SHOWN = ("model", "requests_left", "closed_until")
    account: str
    model: str
    requests_limit: int | None = None
    requests_left: int | None = None
    tokens_limit: int | None = None
    tokens_left: int | None = None
    closed_until: datetime | None = None
    last_call_at: datetime | None = None


class WaitingJobs(ApiModel):
    """How many jobs wait at one limit, and when it lets the next one through."""

    SHOWN = ("reason", "model", "jobs")
    reason: Open[WaitReason] = ""
    account: str | None = None
    model: str | None = None
    jobs: int = 0
    next_at: datetime | None = None


class Pacing(ApiModel):
    """The provider's limits as the workers know them, and what waits for limits."""

    SHOWN = ("waiting",)
    meters: tuple[Meter, ...] = ()
    waiting: tuple[WaitingJobs, ...] = ()
