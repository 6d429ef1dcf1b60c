"""Defines the statuses of a job and the one table of legal transitions.

Terminal statuses have empty rows. No other code decides whether a change of status is legal.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """The status of a job, as an app sees it."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"  # waiting on purpose: not_before, backoff, hold
    RUNNING = "running"
    CHECKING = "checking"  # running, and a safety check is signalled or suspected
    COMPLETED = "completed"
    BLOCKED = "blocked"  # content withheld by the provider
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


_UNSUCCESSFUL: Final = frozenset({Status.BLOCKED, Status.FAILED, Status.CANCELLED, Status.EXPIRED})

TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.SCHEDULED}) | _UNSUCCESSFUL,
    Status.SCHEDULED: frozenset({Status.QUEUED, Status.RUNNING}) | _UNSUCCESSFUL,
    Status.RUNNING: frozenset({Status.CHECKING, Status.SCHEDULED, Status.QUEUED, Status.COMPLETED}) | _UNSUCCESSFUL,
    Status.CHECKING: frozenset({Status.RUNNING, Status.SCHEDULED, Status.QUEUED, Status.COMPLETED}) | _UNSUCCESSFUL,
    Status.COMPLETED: frozenset(),
    Status.BLOCKED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.EXPIRED: frozenset(),
}

TERMINAL: Final = frozenset(status for status, row in TRANSITIONS.items() if not row)
UNDER_WAY: Final = frozenset({Status.RUNNING, Status.CHECKING})


class ScheduledReason(StrEnum):
    """Why a scheduled job waits."""

    NOT_BEFORE = "not_before"
    BACKOFF = "backoff"
    HOLD = "hold"


class Outcome(StrEnum):
    """How one attempt ended."""

    COMPLETED = "completed"
    REFUSED = "refused"
    INCOMPLETE = "incomplete"
    BLOCKED = "blocked"
    SUBSTITUTED = "substituted"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    CONNECT_FAILED = "connect_failed"
    STREAM_CUT = "stream_cut"
    IDLE_TIMEOUT = "idle_timeout"
    PROTOCOL_ERROR = "protocol_error"
    ACCESS_DENIED = "access_denied"
    AUTH_FAILED = "auth_failed"
    QUOTA_EXHAUSTED = "quota_exhausted"
    BAD_REQUEST = "bad_request"
    CONTEXT_TOO_LONG = "context_too_long"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    LOST = "lost"


DELIVERED: Final = frozenset({Outcome.COMPLETED, Outcome.REFUSED, Outcome.INCOMPLETE})
"""Outcomes whose answer may be given to the app."""


PAUSE_SCOPE: Final = "pause:"
"""The beginning of the scope of a hold that a pause imposes; a circuit's begins differently."""


class Purpose(StrEnum):
    """Why an attempt was made."""

    ORIGINAL = "original"
    RETRY = "retry"  # the same model again
    FASTER = "faster"  # the delay rule's switch
    RACE = "race"
    DRAFT = "draft"
    FALLBACK = "fallback"  # the access rule's next model


class Evidence(StrEnum):
    """The strength of the evidence that a safety check runs."""  # promise P5

    SIGNALLED = "signalled"
    SUSPECTED = "suspected"


class CheckEnd(StrEnum):
    """The reason why a check's interval ended, inferred from what came next."""  # wire.md section 2.3: no event for it

    OUTPUT = "output"
    COMPLETED = "completed"
    BLOCKED = "blocked"
    FAILED = "failed"
    SUBSTITUTED = "substituted"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    LOST = "lost"


class RetryModelState(StrEnum):
    """Whether the provider named a faster model, said that there is none, or said nothing."""  # wire.md section 2.1

    NAMED = "named"
    NONE = "none"  # an explicit null: the provider offers no faster model
    ABSENT = "absent"


class SafetyState(StrEnum):
    """A summary of the job's safety checks and block."""

    NONE = "none"
    CHECKING = "checking"
    CLEARED = "cleared"
    BLOCKED = "blocked"
