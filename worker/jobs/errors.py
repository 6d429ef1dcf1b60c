"""Defines every error that Vigil raises on purpose, and the failures that it keeps as values.

The tree names who can do something about each error.

    VigilError
    ├── IllegalEvent        Vigil: an event that does not fit the record
    ├── AlreadySettled      nobody: the job is terminal, so a late write is refused
    ├── LeaseLost           Vigil: another worker holds the lease; stop and write nothing
    ├── EndUserQuarantined  operator: the end user was quarantined before the model was called; nothing is sent
    ├── SettingsError       operator: all faults of the settings together
    ├── StoreUnavailable    operator: Redis can't answer or can't take the job; try again
    │   ├── StoreChanged    operator: Redis came back empty, older or as another's; its data must come back
    │   ├── StoreRefused    operator: Redis refuses the login or a command that Vigil needs
    │   ├── StoreFull       operator: Redis has reached its maxmemory
    │   ├── KeyMissing      operator: content is sealed under a key that this process was not given
    │   └── ArchiveUnavailable operator: content is in the archive, which can't be read now; try again
    ├── ContentDamaged      unknown: sealed content was changed or moved; it can't be read
    │   └── ContentNotSealed operator: plain content although encryption is on: older than it, or planted
    ├── ContentTooLarge     operator: a value is larger than Redis takes, however often it is sent
    ├── RecordUnreadable    unknown: a stored value is damaged, not authentic, or a newer release wrote it
    ├── UnsafeStore         operator: Redis could drop accepted jobs (eviction policy)
    ├── UnknownModel        caller: models.toml has no such model
    ├── RateExceeded        caller: the app's token bucket is empty; says when to try again
    ├── QueueFull           caller: the app has reached its quota of jobs waiting or bytes held
    ├── EarlierCallerWaits  Vigil: a retry came while the request that it may repeat still waits; try again shortly
    └── Refused             caller: the request can't be done as it stands (code, detail)

No message holds a prompt, an output, a key or a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from worker.jobs.record import Block, ProviderError
from worker.jobs.states import Outcome


class VigilError(Exception):
    """The base class of Vigil's own errors."""


class IllegalEvent(VigilError):
    """The event does not fit the record."""

    def __init__(self, event: str, reason: str) -> None:
        super().__init__(f"{event}: {reason}")


class AlreadySettled(VigilError):
    """The job is terminal and takes no more events (promise P8)."""

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"{job_id} is {status} already")
        self.job_id, self.status = job_id, status


class LeaseLost(VigilError):
    """Another worker holds the job's lease."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"{job_id}: another worker holds the lease")
        self.job_id = job_id


class EndUserQuarantined(VigilError):
    """The job's end user is quarantined, so the model is not called."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"{job_id}: its end user is quarantined")
        self.job_id = job_id


class EarlierCallerWaits(VigilError):
    """An identical request of the same app still waits for its answer, so this retry may or may not be its."""


class SettingsError(VigilError):
    """The settings can't be used; `faults` has one line for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class StoreUnavailable(VigilError):
    """Redis did not answer or refused the write; `reason` is one line, if the cause is known."""

    def __init__(self, what: str, reason: str = "") -> None:
        super().__init__(f"{what} ({reason})" if reason else what)
        self.reason = reason or what


class StoreRefused(StoreUnavailable):
    """Redis refuses the login or a command that Vigil needs; waiting does not help."""


class StoreFull(StoreUnavailable):
    """Redis has reached its maxmemory; a later write may fit."""


class StoreChanged(StoreUnavailable):
    """Redis lost data that this process had seen there; the message says what is missing and what to do."""


class KeyMissing(StoreUnavailable):
    """The content is sealed under a key that this process does not have; it is kept until the key is given."""

    def __init__(self, kid: str) -> None:
        super().__init__(f"content is sealed under encryption key {kid}, which VIGIL_ENCRYPTION_KEYS does not hold")
        self.kid = kid


class ArchiveUnavailable(StoreUnavailable):
    """The archive, which holds this content, does not answer or is not set up here; the content is kept there.

    `refused`: it answers, and refuses what was asked of it.
    """

    def __init__(self, what: str, *, refused: bool = False) -> None:
        super().__init__(what)
        self.refused = refused


class ContentDamaged(VigilError):
    """Sealed content does not open: it was changed, or moved from another job or field."""

    def __init__(self, job_id: str, field: str) -> None:
        super().__init__(f"the stored {field} of {job_id or 'this Vigil'} can't be opened: it was changed or moved")


class ContentNotSealed(ContentDamaged):
    """Content is plain although encryption is on: it is older than the encryption, or something else wrote it."""

    def __init__(self, job_id: str, field: str) -> None:
        VigilError.__init__(
            self,
            f"the stored {field} of {job_id or 'this Vigil'} is not encrypted although VIGIL_ENCRYPTION_KEYS is set: "
            "it is older than that setting (VIGIL_ACCEPT_UNSEALED=1 reads it), or Vigil did not write it",
        )


class ContentTooLarge(VigilError):
    """A value exceeds the store's limit, or alone the quota `of_app`, so sending it again does not help."""

    def __init__(self, size: int, limit: int | None = None, *, of_app: bool = False) -> None:
        super().__init__(f"{size} bytes are more than Redis takes" + (f" ({limit})" if limit else ""))
        self.size, self.limit, self.of_app = size, limit, of_app


UnreadableReason = Literal[
    "newer", "not_json", "wrong_shape", "wrong_type", "gone", "no_mac", "wrong_mac", "unknown_key"
]
UNAUTHENTIC: Final = frozenset({"no_mac", "wrong_mac", "unknown_key"})
"""Reasons that say nothing of a value's form: it can't be told that Vigil wrote it."""


class RecordUnreadable(VigilError):
    """A stored value can't be read: `key` names it and `why` the kind of damage; the message has no content."""

    def __init__(self, key: str, why: UnreadableReason) -> None:
        super().__init__(f"the value of {key or 'a key'} can't be read ({why})")
        self.key, self.why = key, why


class UnsafeStore(VigilError):
    """The configuration of Redis would let it drop accepted jobs."""


class UnknownModel(VigilError):
    """models.toml has no such model."""

    def __init__(self, model: str, known: list[str]) -> None:
        super().__init__(f"unknown model {model!r}; known: {', '.join(known)}")
        self.model, self.known = model, known


class RateExceeded(VigilError):
    """The app exceeded its submit rate of `limit` jobs in `window` seconds; the next fits after `wait` seconds."""

    def __init__(self, limit: int, window: int, wait: int) -> None:
        super().__init__(f"more than {limit} jobs in {window} s; again in {wait} s")
        self.limit, self.window, self.wait = limit, window, wait


QuotaLimit = Literal["jobs_waiting", "bytes_held", "memory_held"]


class QueueFull(VigilError):
    """The app's quota `limit` is used up: it has `current` of at most `bound`, and may try again in `wait` seconds."""

    def __init__(self, limit: QuotaLimit, current: int, bound: int, wait: int) -> None:
        super().__init__(f"{limit}: {current} of at most {bound}")
        self.limit, self.current, self.bound, self.wait = limit, current, bound, wait


class Refused(VigilError):
    """The request can't be carried out; `code` is for programs, `detail` for people."""

    def __init__(self, code: str, detail: str, status: int = 409) -> None:
        super().__init__(detail)
        self.code, self.detail, self.status = code, detail, status


Fault = Literal["caller", "us", "provider", "network", "account"]


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why an attempt gave no answer, as a value.

    `retry_after`: the seconds that the provider asks to wait. `scope`: "attempt" failures concern this call alone,
    "account" ones the key, its quota or organisation, "deployment" ones the key or quota that a gateway uses for this
    model, "model" ones the access to this model.
    """

    outcome: Outcome
    code: str
    fault: Fault
    retryable: bool = False
    scope: Literal["attempt", "account", "deployment", "model"] = "attempt"
    retry_after: float | None = None
    block: Block | None = None
    provider: ProviderError | None = None


RETRYABLE: Final = frozenset(
    {
        Outcome.RATE_LIMITED,
        Outcome.OVERLOADED,
        Outcome.SERVER_ERROR,
        Outcome.CONNECT_FAILED,
        Outcome.STREAM_CUT,
        Outcome.IDLE_TIMEOUT,
        Outcome.PROTOCOL_ERROR,
    }
)
"""Outcomes after which the same model may be called again (wire.md section 11, rule 6)."""
