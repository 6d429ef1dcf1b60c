"""Types of what a job's end or its app's decisions say: the bill of a cancelled job, an accepted offer."""

from __future__ import annotations

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
