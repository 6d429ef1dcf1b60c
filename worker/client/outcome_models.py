"""Types of what a job's end or its app's decisions say: the bill of a cancelled job, an accepted offer."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

from .api_model import ApiModel, Open


class Billed(ApiModel):
    """Whether the provider bills what ran when the job was cancelled; `cost` is a part of the job's."""

    SHOWN = ("state", "cost")
    state: Open[Literal["yes", "no", "unknown"]]
    cost: Decimal | None = None
    estimated: bool = False
    message: str = ""


class Offer(ApiModel):
    """An open offer of a faster model; `Vigil.retry` accepts it, and `message` says what that means."""

    SHOWN = ("model", "until")
    model: str
    since: datetime | None = None
    until: datetime | None = None
    message: str = ""
    policy_version: int | None = None
    terms_digest: str = ""


class Consent(ApiModel):
    """Who accepted an offer (the id of an API key), when, and the digest of the terms that it was shown with."""

    SHOWN = ("model", "by", "at")
    model: str
    by: str
    at: datetime
    policy_version: int | None = None
    terms_digest: str = ""
