"""The types of the API's other responses: batch rows, webhook messages, audit records, models, status, pages."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, Literal, TypeVar

from .api_model import ApiModel, Open
from .enums import AccessStatus, AccountReason, AccountStatus, MessageState
from .models import Disclosure, Job
from .waiting import Pacing


class BatchRow(ApiModel):
    """The outcome of one job of a batch: either `job` or `problem`."""

    SHOWN = ("index", "status")
    index: int
    status: int
    job: Job | None = None
    problem: dict[str, Any] | None = None
    idempotent_replayed: bool = False


class Explanation(ApiModel):
    """What became of a job, for a person: `text` is one paragraph, made of the sentences after it."""

    SHOWN = ("id", "status")
    id: str
    status: str
    text: str
    outcome: str = ""
    calls: str | None = None
    checks: str | None = None
    substitution: str | None = None
    notices: str | None = None
    cost: str | None = None
    advice: str | None = None


class JobGroup(ApiModel):
    """How a group of jobs stands: how many have each status, and how many have not ended (`open`)."""

    SHOWN = ("id", "total", "open")
    id: str
    created_at: datetime
    ended_at: datetime | None = None
    total: int = 0
    open: int = 0
    counts: dict[str, int] = {}
    urls: dict[str, str] = {}


class Receipt(ApiModel):
    """One attempt to deliver a message."""

    SHOWN = ("at", "status_code", "error")
    at: datetime
    trigger: Open[Literal["scheduled", "manual"]] = "scheduled"
    status_code: int | None = None
    seconds: float | None = None
    error: str | None = None
    response_excerpt: str | None = None


class Message(ApiModel):
    """A webhook message about a job, with a receipt for each delivery attempt."""

    SHOWN = ("id", "type", "state")
    id: str
    type: str
    seq: int | None = None
    url: str | None = None
    endpoint: str | None = None
    state: Open[MessageState]
    created_at: datetime | None = None
    next_try_at: datetime | None = None
    deliveries: tuple[Receipt, ...] = ()


class Decision(ApiModel):
    """Who decided what an audit record tells of."""

    SHOWN = ("by",)
    by: str = ""
    key_id: str | None = None
    policy_version: int | None = None


class AuditRecord(ApiModel):
    """One record of the audit trail. The records of a job are chained: each hash covers the hash before."""

    SHOWN = ("seq", "type", "hash")
    seq: int | None = None
    type: str
    at: datetime
    job_id: str | None = None
    attempt: int | None = None
    hash: str
    app: str = ""
    key_id: str = ""
    data: dict[str, Any] = {}
    requested_model: str | None = None
    served_model: str | None = None
    input_digest: str | None = None
    output_digest: str | None = None
    disclosure: Disclosure | None = None
    decision: Decision | None = None
    call: dict[str, Any] | None = None
    checks: tuple[dict[str, Any], ...] = ()
    cost: dict[str, str | None] | None = None


class Access(ApiModel):
    """Whether this organisation may call a model, as of the last probe, and what to do if not."""

    SHOWN = ("status", "since")
    status: Open[AccessStatus] = "unknown"
    since: datetime | None = None
    probed_at: datetime | None = None
    request_id: str | None = None
    advice: str = ""
    skipped: bool = False
    next_probe_at: datetime | None = None


class Model(ApiModel):
    """A model that Vigil knows, with prices in dollars per million tokens."""

    SHOWN = ("id", "tier", "access")
    id: str
    family: str = ""
    tier: Open[Literal["flagship", "balanced", "fast"]] = ""
    checked: bool = False
    input_per_million: Decimal | None
    output_per_million: Decimal | None
    cached_input_per_million: Decimal | None = None
    price_from: datetime | None = None
    price_until: datetime | None = None
    price_checked_on: date | None = None
    efforts_refused: tuple[str, ...] = ()
    shutdown_date: date | None = None
    aliases: tuple[str, ...] = ()
    access: Access = Access()


class Queue(ApiModel):
    """How many jobs wait and run."""

    SHOWN = ("queued", "scheduled", "running", "checking")
    queued: int = 0
    scheduled: int = 0
    running: int = 0
    checking: int = 0
    oldest_queued_seconds: float | None = None


class Worker(ApiModel):
    """A worker process that is alive."""

    SHOWN = ("id", "running", "draining")
    id: str
    running: int = 0
    beat_at: datetime | None = None
    draining: bool = False
    store_schema: int | None = None
    slots: int = 0
    accounts: tuple[str, ...] = ()
    circuits: tuple[str, ...] = ()


class Account(ApiModel):
    """How the provider treats the account: normal, or with more checks than usual."""

    SHOWN = ("state",)
    state: Open[AccountStatus] = "unknown"
    families: dict[str, Any] = {}
    evidence: dict[str, Any] = {}


class ProviderAccount(ApiModel):
    """An account at the provider: how it is treated, and whether it may be called."""

    SHOWN = ("name", "state", "circuit")
    name: str
    state: Open[AccountStatus] = "unknown"
    because: tuple[Open[AccountReason], ...] = ()
    circuit: Open[Literal["closed", "open", "half_open"]] = "closed"
    circuit_reason: str | None = None
    families: dict[str, Any] = {}
    notices: dict[str, int] = {}


class Rates(ApiModel):
    """The shares of requests that were checked, blocked or substituted in the last `window_seconds`."""

    SHOWN = ("checks", "blocks", "substitutions")
    checks: float | None = None
    blocks: float | None = None
    substitutions: float | None = None
    window_seconds: int = 0


class Silence(ApiModel):
    """From when on silence of a model suggests a safety check, for jobs that give no `silence_seconds`."""

    SHOWN = ("model", "after_seconds")
    model: str
    after_seconds: float
    usual_seconds: float | None = None
    samples: int = 0
    suspected: int = 0


class Partition(ApiModel):
    """A store of a deployment with several, and why it can't be used now."""

    SHOWN = ("name", "away")
    name: str
    away: str | None = None


class Status(ApiModel):
    """The state of queue, workers, account, circuits and pauses."""

    SHOWN = ("queue",)
    queue: Queue = Queue()
    workers: tuple[Worker, ...] = ()
    account: Account = Account()
    accounts: tuple[ProviderAccount, ...] = ()
    rates: Rates = Rates()
    circuits: tuple[dict[str, Any], ...] = ()
    pauses: tuple[dict[str, Any], ...] = ()
    pacing: Pacing = Pacing()
    silences: tuple[Silence, ...] = ()
    partitions: tuple[Partition, ...] = ()


Row = TypeVar("Row", bound=ApiModel)


class Page(ApiModel, Generic[Row]):
    """A page of a list; `next_cursor` is the cursor of the next page."""

    SHOWN = ("next_cursor",)
    data: tuple[Row, ...] = ()
    next_cursor: str | None = None
