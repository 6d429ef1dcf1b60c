"""Plans what one attempt may cost, so that `max_cost_usd` holds: input bounded by size, output by a limit that is sent.

Pure. Every bound is on the high side: no cache hits, cache writes at their price, no discount of a tier or window. What
earlier attempts of the job cost is subtracted, and what attempts beside this one may still cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Final

from worker.jobs import events as ev
from worker.jobs.catalogue import Catalogue
from worker.jobs.events import EventDraft
from worker.jobs.model import Model
from worker.jobs.pricing import highest_factor, highest_input_price, highest_output_price
from worker.jobs.record import CallTerms, Job
from worker.jobs.request_shape import MAX_CONTEXT_TOKENS, RequestShape
from worker.safety.served_model import base_name

MIN_OUTPUT_TOKENS: Final = 16
"""The provider refuses a lower max_output_tokens."""
_MILLION: Final = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class CallPlan:
    """The terms of an attempt, or that it does not fit the cap. `highest`: what it can cost, None if unbounded."""

    terms: CallTerms
    fits: bool = True
    highest: Decimal | None = None


def plan_call(
    catalogue: Catalogue,
    model: str,
    shape: RequestShape,
    at: datetime,
    *,
    left: Decimal | None = None,
    regional: bool = False,
) -> CallPlan:
    """Return the plan of a call to `model`; `left`: what the job may still cost, None without a cap.

    A model without a price can't be bounded: its plan fits whatever is left.
    """
    terms = CallTerms(
        service_tier=shape.service_tier, window=shape.window, regional=regional, input_tokens=shape.likely_input
    )
    known = known_model(catalogue, model)
    row = known.row(at) if known is not None else None
    if known is None or row is None:
        return CallPlan(terms)
    tokens = shape.highest_input(known.context_tokens)
    is_long = row.long_context is not None and tokens > row.long_context.over
    factor = highest_factor(row, terms) / _MILLION
    read = tokens * highest_input_price(row, long_context=is_long, kept_12h=shape.kept_12h) * factor
    per_token = highest_output_price(row, long_context=is_long) * factor * shape.choices
    own, known_limit = shape.output_limit, known.max_output_tokens
    if left is None:
        limits = [limit for limit in (own, known_limit) if limit is not None]
        return CallPlan(terms, highest=read + min(limits) * per_token if limits else None)
    most = own or known_limit or known.context_tokens or MAX_CONTEXT_TOKENS
    affordable = most if per_token == 0 else int(((left - read) / per_token).to_integral_value(ROUND_DOWN))
    limit = min(affordable, most)
    highest = read + max(limit, 0) * per_token
    if read > left or affordable < min(MIN_OUTPUT_TOKENS, most):
        return CallPlan(terms, fits=False, highest=highest)
    # without a limit of its own the request gets one, unless no model can put out what the cap allows
    needless = affordable >= most and (own is not None or known_limit is None)
    return CallPlan(terms.evolve(max_output_tokens=None if needless else limit, max_cost=highest), highest=highest)


def left_of_cap(
    job: Job, drafts: Iterable[EventDraft] = (), stopping: dict[int, Decimal] | None = None
) -> Decimal | None:
    """Return what the job may still cost, None without a cap.

    `drafts`: facts that are not in the record yet. An attempt that has ended counts as what it cost, one that runs as
    the most that it can cost. `stopping`: attempts that are about to be stopped, with what they have cost so far.
    """
    cap = job.policy.max_cost_usd
    if cap is None:
        return None
    ended = {n: fact.cost for fact, n in drafts if isinstance(fact, ev.AttemptFinished) and n is not None}
    spent = Decimal(0)
    for attempt in job.attempts:
        if attempt.outcome is not None:
            spent += attempt.cost or 0
        elif attempt.number in ended:
            spent += ended[attempt.number] or 0
        elif stopping is not None and attempt.number in stopping:
            spent += stopping[attempt.number]
        elif attempt.terms is not None:
            spent += attempt.terms.max_cost or 0
    return cap - spent


def known_model(catalogue: Catalogue, name: str) -> Model | None:
    """Return the model with this name, whatever its date and case, or None."""
    return catalogue.find(name) or catalogue.find(base_name(name, catalogue.aliases))
