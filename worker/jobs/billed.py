"""Says whether the provider bills what ran when a job was cancelled, as far as that is known. Pure, from the record.

The provider tells what a call used only with its end. A call that Vigil stopped has such an end if the provider
answered the request to stop it in time; otherwise the call may have been billed, and nobody here can know.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, Literal, TypedDict

from worker.jobs.catalogue import dollars
from worker.jobs.record import Attempt, Job
from worker.jobs.states import Outcome, Status
from worker.jobs.view_schema import BilledView, Money


class CancelledBill(TypedDict):
    """The fields of `Cancelled` about the bill."""

    billed: bool
    bill: Literal["yes", "no", "unknown"]


_STOPPED: Final = Outcome.CANCELLED
_MAY_RUN_ON: Final = frozenset({Outcome.LOST, Outcome.INTERRUPTED, Outcome.STREAM_CUT, Outcome.IDLE_TIMEOUT})
"""Ends that the provider did not tell: its side of the call may go on."""
_HTTP_ERROR: Final = 400
_STATES: Final[dict[bool | None, Literal["yes", "no", "unknown"]]] = {True: "yes", False: "no", None: "unknown"}
_NOTHING = "No call to the provider was running when the job was cancelled, so cancelling cost nothing."
_REFUSED = "The provider had refused or not begun the call that was stopped, so it is not billed."
_REPORTED = "The provider reported what it had used up to the cancellation, and bills that."
_UNKNOWN = (
    "The provider did not report what it had used up to the cancellation, so it is not known whether it bills that: "
    "its own usage page tells."
)
_UNANSWERED = (
    "The call was stopped before the provider answered it, so it is not known whether it was received and is billed."
)


def bill_of(attempts: Iterable[Attempt]) -> CancelledBill:
    """Return what the end of a cancelled job says of its bill; `attempts` with their ends."""
    billed = is_billed(attempts)
    return {"billed": billed is not False, "bill": _STATES[billed]}


def is_billed(attempts: Iterable[Attempt]) -> bool | None:
    """Return whether the provider bills what ran, None if that is not known; `attempts` with their ends."""
    answers = [_one(attempt) for attempt in _ran(attempts)]
    if None in answers:
        return None
    return any(answers)


def billed_view(job: Job) -> BilledView | None:
    """Return what is known of the bill of a cancelled job, None for any other job."""
    if job.status is not Status.CANCELLED:
        return None
    ran = _ran(job.attempts)
    unknown = [attempt for attempt in ran if _one(attempt) is None]
    billed = is_billed(job.attempts)
    estimated = any(attempt.usage is not None and attempt.usage.estimated for attempt in ran)
    cost = _cost(ran)
    if not ran:
        message = _NOTHING
    elif unknown:
        message = (
            _UNKNOWN if any(attempt.usage is not None or _accepted(attempt) for attempt in unknown) else _UNANSWERED
        )
    else:
        message = _REPORTED if billed else _REFUSED
    return {"state": _STATES[billed], "cost": cost, "estimated": estimated, "message": message}


def _ran(attempts: Iterable[Attempt]) -> list[Attempt]:
    """Return the attempts that ran when the job was cancelled, or that may still run: those whose end nobody saw."""
    return [attempt for attempt in attempts if attempt.outcome is _STOPPED or attempt.outcome in _MAY_RUN_ON]


def _one(attempt: Attempt) -> bool | None:
    if attempt.usage is not None and not attempt.usage.estimated:
        return attempt.usage.total_tokens > 0
    if attempt.http_status is not None and attempt.http_status >= _HTTP_ERROR:
        return False
    return None


def _accepted(attempt: Attempt) -> bool:
    return attempt.response_id is not None or attempt.http_status is not None


def _cost(ran: list[Attempt]) -> Money | None:
    """Return what these attempts cost, as counted or estimated; None if that is not known of one of them."""
    if any(attempt.cost is None or (attempt.usage is None and _one(attempt) is None) for attempt in ran):
        return None
    return dollars(sum((attempt.cost for attempt in ran if attempt.cost is not None), Decimal(0)))
