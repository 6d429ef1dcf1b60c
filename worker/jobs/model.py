"""Defines one model of the catalogue, with its prices, and a family of models that can replace one another."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from worker.jobs.frozen import Frozen
from worker.jobs.pricing import PriceRow

Tier = Literal["flagship", "balanced", "fast"]


class Model(Frozen):
    """One model: its family, tier, and rows of prices in order of time; none if the file has no price.

    A file needs the name only: then the model is a family of its own without a price or a known tier.
    """

    id: str
    family: str
    tier: Tier = "balanced"
    checked: bool = False
    prices: tuple[PriceRow, ...] = ()
    aliases: tuple[str, ...] = ()
    fallback: tuple[str, ...] | None = None  # None: those after it in its family's chain
    efforts_refused: tuple[str, ...] = ()  # values of reasoning.effort that the provider refuses
    context_tokens: int | None = None  # the most that one request can hold
    max_output_tokens: int | None = None
    shutdown_date: date | None = None
    rpm: int | None = None  # the most calls a minute, of an account; None: as the provider says
    tpm: int | None = None  # the most tokens a minute
    max_concurrent: int | None = None  # jobs at once; None: any number

    def row(self, at: datetime | None = None) -> PriceRow | None:
        """Return the prices in force at this time, or None without a price.

        Without a time, the newest row. After the end of the last row that one, before the first row the first: a known
        model always has a price.
        """
        if at is None or not self.prices:
            return self.prices[-1] if self.prices else None
        begun = [row for row in self.prices if row.start is None or row.start <= at]
        return begun[-1] if begun else self.prices[0]


class Family(Frozen):
    """Models that can replace one another."""

    fast: str | None = None
    fallback: tuple[str, ...] = ()
