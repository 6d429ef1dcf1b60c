"""The shapes in which jobs go into the store and come out of it: NewJob, OutputChange, StoredJob, ClaimedJob."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from worker.jobs import events as ev
from worker.jobs.record import Job
from worker.jobs.view import PRIVATE as PRIVATE_MEMBERS, mark_unreadable
from worker.jobs.view_schema import WaitingForView
from worker.store import keys
from worker.store.admission.app_quota import AppQuota
from worker.store.admission.pacing import Charge, read_wait
from worker.store.admission.pauses import Pause
from worker.store.admission.rate_limit import RateLimit, RateMeter
from worker.store.commands import Command
from worker.store.connection.job_keys import require_object
from worker.store.envelope import PRIVATE, MasterKeyring
from worker.store.jobs.uploads import Upload


@dataclass(frozen=True, slots=True)
class Caller:
    """A request that waits for the answer to its create, and whose SDK sends the same again when it gets none.

    `digest`: keyed, of the app's request. `name`: `<API process>:<number>`. `turn`: a `retry` joins the job of an
    identical request that has gone without its answer, and waits while one may go; `late` joins, but does not wait.
    """

    digest: str = field(repr=False)
    name: str
    window_seconds: float
    turn: Literal["first", "retry", "late"] = "first"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to create: the fact that begins it, what only the app may see, and the input for the model."""

    fact: ev.Queued
    private: dict[str, Any] = field(repr=False)
    input: dict[str, Any] = field(repr=False)
    idempotency_key: str | None = field(default=None, repr=False)
    fingerprint: str = ""
    meter: RateMeter = field(default_factory=lambda: RateMeter(RateLimit(0)))  # charged for the job
    quota: AppQuota = field(default_factory=AppQuota)  # of its app
    job_id: str | None = None  # its id, if something names it already
    caller: Caller | None = None
    upload: Upload | None = None  # the long strings of the input, which has placeholders for them
    media_sizes: list[int] = field(default_factory=list)  # the pieces of each of them


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job that only its script has still to create. `held`: bytes of its content; `largest`: of one argument."""

    new: NewJob
    job: Job
    trail: list[ev.Event]
    commands: list[Command] = field(repr=False)
    held: int
    largest: int


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as it is in Redis: its record, what only its app may see, the names of notices about it, and the limit at
    which it waits.
    """

    job: Job
    private: dict[str, Any] = field(repr=False)
    notices: tuple[str, ...] = ()
    waiting_for: WaitingForView | None = None


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job whose lease this worker holds, as long as `token` is the one in Redis."""

    job: Job
    private: dict[str, Any] = field(repr=False)
    token: str
    generation: int
    crashed: bool  # its last holder died without releasing it
    pause: Pause | None = None  # what stops it from starting
    charge: Charge | None = None  # what its next call was counted as
    open_circuits: frozenset[str] = (
        frozenset()
    )  # when it was claimed: check the gate before calling one of these accounts
    input: dict[str, Any] | None = field(default=None, repr=False)  # None when it is large: it is read on its own
    unreadable: Literal["", "locked", "damaged"] = ""  # its master key is not here (yet), or its content is damaged


@dataclass(frozen=True, slots=True)
class AppLimits:
    """What apps may take in a claim.

    `running`: how many jobs an app may run at once if its record says nothing; 0 = any number. `share`: of the slots of
    the worker that it holds and those that are free, an app takes no more than this share, 1 = all; the last free one
    goes to any app that holds none. `held`: how many slots of the worker each app holds. `rules`: what else keeps jobs
    from starting (`PaceRules.text`).
    """

    running: int = 0
    share: float = 1.0
    held: Mapping[str, int] = field(default_factory=dict)
    rules: str = ""


@dataclass(frozen=True, slots=True)
class OutputChange:
    """What a commit does to the model's output: stores it, sealed already, or deletes it if `sealed` is None.

    `digest`: the keyed digest of the output, for the audit trail; "" if there is none. `items`: the provider's ids of
    its items, by which the app may name them. `is_late`: it should be in the archive, and is to be moved there later.
    """

    job_id: str
    sealed: bytes | None = field(repr=False)
    digest: str = ""
    items: tuple[str, ...] = ()
    is_late: bool = False

    @property
    def size(self) -> int:
        """Return the bytes that Redis has to take."""
        return len(self.sealed or b"")

    def commands(self) -> list[Command]:
        """Return the commands that make the change."""
        key = keys.job_output(self.job_id)
        change: Command = ("DEL", key) if self.sealed is None else ("SET", key, self.sealed)
        return [change, ("ZADD", keys.UNARCHIVED, 0, self.job_id)] if self.is_late else [change]


def stored_of(
    keyring: MasterKeyring, job: Job, private: bytes | None, notices: bytes | None, waits: bytes | None = None
) -> StoredJob:
    """Return the job with the fields `priv`, `ntc` and `waits` of its hash. Raises KeyMissing, ContentDamaged."""
    if not private:  # each job is written with one
        return unreadable_of(job, notices, waits)
    content = require_object(job.id, PRIVATE, keyring.open(job.app, job.id, PRIVATE, private)[1]) or {}
    return StoredJob(job, content, _names(notices), read_wait(waits))


def unreadable_of(job: Job, notices: bytes | None, waits: bytes | None = None) -> StoredJob:
    """Return the job with a private part that says that it can't be read."""
    return StoredJob(job, mark_unreadable({}, *PRIVATE_MEMBERS), _names(notices), read_wait(waits))


def _names(notices: bytes | None) -> tuple[str, ...]:
    return tuple(notices.decode(errors="replace").split()) if notices else ()
