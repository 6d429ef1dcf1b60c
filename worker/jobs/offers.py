"""The parts of a job's record about offers of a faster model: the open one, and the app's consent."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from worker.jobs.frozen import Stored


class Offer(Stored):
    """An open offer to run on a faster model."""

    model: str
    since: datetime
    until: datetime | None = None
    policy_version: int | None = Field(default=None, exclude_if=lambda value: value is None)  # that made it


class Consent(Stored):
    """Who accepted the offer of a faster model, when, and what the offer said.

    `policy_version` is that of the delay policy that made the offer; `terms_digest` is the one that it was shown with.
    """

    model: str
    by: str
    at: datetime
    policy_version: int | None = None
    terms_digest: str
