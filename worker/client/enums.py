"""The known values of the API's enumerated fields. A newer server may send others: see `models.Open`.

A test compares them with the API's document.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

BlockCategory = Literal["cyber", "bio", "prompt", "misalignment", "image", "content_filter", "unknown"]
BlockScope = Literal["request", "end_user"]
Carrier = Literal["http_400", "http_403", "error_event", "response_failed", "incomplete", "chat_chunk"]
DisclosureReason = Literal["safety_check_delay", "silence", "access_denied", "provider_reroute", "offer_accepted"]
DecidedBy = Literal["policy", "app", "provider"]


MessageCut = Literal["quoted", "secret", "too_long", "not_compared"]
MessageState = Literal["pending", "delivered", "exhausted", "gone"]
DraftState = Literal["standing", "superseded", "withdrawn"]
WaitReason = Literal["provider_rate", "account_checks", "model_concurrency", "end_user_concurrency"]
NextActionKind = Literal["offer", "switch", "race", "draft", "expire"]
NextActionRule = Literal["after_seconds", "silence_seconds", "deadline", "queue_deadline", "run_deadline"]
ContentState = Literal["kept", "deleted", "not_stored", "locked"]
AccessStatus = Literal[
    "ok", "not_granted", "wrong_project", "wrong_organization", "region", "key", "network", "quota", "unknown"
]
AccountStatus = Literal["normal", "elevated", "widened"]
AccountReason = Literal["checks_widened", "checks_on_few_end_users", "check_rate_up", "provider_notice"]


class JobStatus(StrEnum):
    """The status of a job."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"  # waiting on purpose: not_before, backoff, hold
    RUNNING = "running"
    CHECKING = "checking"  # running, and a safety check is signalled or suspected
    COMPLETED = "completed"
    BLOCKED = "blocked"  # content withheld by the provider
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL: Final = frozenset(
    {JobStatus.COMPLETED, JobStatus.BLOCKED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED}
)
"""The statuses that never change again."""


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


class Purpose(StrEnum):
    """Why an attempt was made."""

    ORIGINAL = "original"
    RETRY = "retry"  # the same model again
    FASTER = "faster"  # the delay rule's switch
    RACE = "race"
    DRAFT = "draft"
    FALLBACK = "fallback"  # the access rule's next model


class Evidence(StrEnum):
    """How sure Vigil is that a safety check runs."""

    SIGNALLED = "signalled"
    SUSPECTED = "suspected"


class CheckEnd(StrEnum):
    """What ended a check."""

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
    """Whether the provider named a faster model in `retry_model`."""

    NAMED = "named"
    NONE = "none"  # an explicit null: the provider offers no faster model
    ABSENT = "absent"


class SafetyState(StrEnum):
    """Whether a safety check was seen, and what came of it."""

    NONE = "none"
    CHECKING = "checking"
    CLEARED = "cleared"
    BLOCKED = "blocked"
