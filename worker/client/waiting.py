"""The types of what a job that has not started waits for: its place in the queue, and the limit that keeps it."""

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
