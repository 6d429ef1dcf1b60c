"""Computes what tokens cost by one row of prices: caches, long context, tiers, completion windows, regions.

Pure and exact (decimals). Which row is in force is the catalogue's business.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Final, NamedTuple

from worker.jobs.frozen import Frozen
from worker.jobs.record import AppliedPrice, CallTerms, Usage

STANDARD: Final = "standard"
_TIER_NAMES: Final = {"fast": "priority", "default": STANDARD, "standard": STANDARD}
_MILLION: Final = Decimal(1_000_000)
_ONE: Final = Decimal(1)
_DEAREST_TIER: Final = Decimal(6)  # Ultrafast (wire-news 1.5)


def tier_name(name: str | None) -> str | None:
    """Return the tier under the one name that prices use, or None where none is named: `auto` leaves it open.

    `fast` is the newer name of `priority`; `default` is Standard.
    """
    return None if name in (None, "auto") else _TIER_NAMES.get(name or "", name)


class LongContext(Frozen):
    """The factors for a whole request with more than `over` input tokens."""

    over: int
    input: Decimal
    output: Decimal


class PriceRow(Frozen):
    """The prices of one model from `start` to before `end`, in US dollars per million tokens."""

    start: datetime | None = None  # None: since ever
    end: datetime | None = None  # None: no end is known
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_12h: Decimal | None = None
    long_context: LongContext | None = None
    tiers: dict[str, Decimal] = {}
    windows: dict[str, Decimal] = {}
    regional: Decimal = _ONE
    source: str | None = None
    checked_on: date | None = None

    def covers(self, at: datetime) -> bool:
        """Return whether the row is in force at this time."""
        return (self.start is None or self.start <= at) and (self.end is None or at < self.end)


class Priced(NamedTuple):
    """What usage costs, in US dollars, and by which row and rules."""

    amount: Decimal
    applied: AppliedPrice


def price(
    model: str,
    row: PriceRow,
    usage: Usage,
    terms: CallTerms | None = None,
    *,
    served_tier: str | None = None,
    at: datetime | None = None,
    long_context: bool | None = None,
) -> Priced:
    """Return what `usage` costs by `row`.

    `served_tier`: the tier that the provider named in its answer, which counts before the requested one. `at`: when the
    attempt began, so that a row which was not in force then is noted. `long_context`: True or False where `usage` is
    not that of one request, as in a sum over many.
    """
    terms, notes = terms or CallTerms(), []
    if at is not None and not row.covers(at):
        notes.append("row_ended" if row.start is None or row.start <= at else "before_first_row")
    tier = tier_name(served_tier) or tier_name(terms.service_tier) or STANDARD
    factor = row.tiers.get(tier, _ONE)
    if tier != STANDARD and tier not in row.tiers:
        notes.append("tier_price_unknown")
    window = terms.window
    if window is not None and tier == STANDARD:  # a window has a price with the Standard tier only
        if window not in row.windows:
            notes.append("window_price_unknown")
        factor *= row.windows.get(window, _ONE)
    if terms.regional:
        factor *= row.regional
    rule = row.long_context
    is_long = rule is not None and (usage.input_tokens > rule.over if long_context is None else long_context)
    read, written = _input_price(row, usage), usage.output_tokens * row.output
    if rule is not None and is_long:
        read, written = read * rule.input, written * rule.output
    applied = AppliedPrice(
        model=model,
        valid_from=row.start,
        valid_until=row.end,
        checked_on=row.checked_on,
        tier=tier,
        factor=factor,
        window=window,
        regional=terms.regional,
        long_context=is_long,
        notes=tuple(notes),
    )
    return Priced((read + written) * factor / _MILLION, applied)


def _input_price(row: PriceRow, usage: Usage) -> Decimal:
    """Return a million times what the input costs; tokens from the cache and written to it are parts of the input."""
    left = usage.input_tokens
    cached = min(usage.cached_input_tokens, left)
    left -= cached
    written = min(usage.cache_write_tokens, left)
    left -= written
    kept_long = min(usage.cache_write_12h_tokens, written)
    write = row.input if row.cache_write is None else row.cache_write
    long_write = write if row.cache_write_12h is None else row.cache_write_12h
    cached_price = row.input if row.cached_input is None else row.cached_input
    return left * row.input + cached * cached_price + (written - kept_long) * write + kept_long * long_write


def highest_input_price(row: PriceRow, *, long_context: bool, kept_12h: bool) -> Decimal:
    """Return the most that one input token can cost, a million times: written to the cache, never read from it."""
    prices = [row.input, row.cache_write or row.input]
    if kept_12h:
        prices.append(row.cache_write_12h or row.input)
    factor = row.long_context.input if row.long_context is not None and long_context else _ONE
    return max(prices) * factor


def highest_output_price(row: PriceRow, *, long_context: bool) -> Decimal:
    """Return what one output token costs at most, a million times."""
    return row.output * (row.long_context.output if row.long_context is not None and long_context else _ONE)


def highest_factor(row: PriceRow, terms: CallTerms) -> Decimal:
    """Return the factor of the requested tier and region, without any discount: the provider may not grant it.

    A tier without a price for this model counts as the dearest that the provider has for any.
    """
    tier = tier_name(terms.service_tier) or STANDARD
    known = row.tiers.get(tier)
    if known is None:
        known = _ONE if tier == STANDARD else max([_DEAREST_TIER, *row.tiers.values()])
    return max(_ONE, known) * (max(_ONE, row.regional) if terms.regional else _ONE)
