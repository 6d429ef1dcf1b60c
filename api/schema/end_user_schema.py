"""The bodies of the routes about end users and their appeals, as sent and as returned."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from api.schema.requests import EndUser, NamedJob, no_nul
from api.schema.responses import LedgerView
from worker.jobs.spec import Spec
from worker.jobs.view_schema import documented
from worker.safety.appeals import MAX_JOBS, MAX_TEXT, AppealOutcome, AppealState, StepKind
from worker.store.end_users.end_user_ledger import Kind, State
from worker.store.end_users.quarantine_rows import LogAct, Source

AppealText = Annotated[str, Field(min_length=1, max_length=MAX_TEXT, pattern=r"\S"), AfterValidator(no_nul)]
ProviderCase = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
"""The id of a case at the provider, as its notices name it."""
LinkedJobs = Annotated[tuple[NamedJob, ...], Field(max_length=MAX_JOBS, strict=False)]


class AppealRequest(Spec):
    """An appeal of an end user, or about jobs."""

    end_user: EndUser | None = None
    """The app's own id, or a known safety identifier. Without it, the end user of the jobs, if they have the same."""
    jobs: LinkedJobs = ()
    reason: AppealText
    """What is asked and why; no prompts."""
    provider_case: ProviderCase | None = None


class AppealSentRequest(Spec):
    """That the appeal was sent to the provider, and under which case."""

    provider_case: ProviderCase
    note: Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(no_nul)] = ""


class AppealAnswerRequest(Spec):
    """What the provider answered."""

    answer: AppealText


class AppealOutcomeRequest(Spec):
    """How the appeal ends."""

    outcome: AppealOutcome
    reason: AppealText


class AppealNoteRequest(Spec):
    """A note on the appeal."""

    text: AppealText


class AppealJobsRequest(Spec):
    """Jobs that the appeal is also about."""

    jobs: Annotated[tuple[NamedJob, ...], Field(min_length=1, max_length=MAX_JOBS, strict=False)]


class EndUserCountsView(TypedDict):
    """Counts of the last `window_seconds`, in which blocks count towards a quarantine."""

    window_seconds: int
    checks: int
    blocks: int
    warnings: int


class QuarantineSummaryView(TypedDict):
    """A quarantine that is in force."""

    source: Source
    since: datetime
    until: datetime | None
    """Null: until it is lifted."""


class QuarantineReasonView(QuarantineSummaryView):
    """A quarantine that is in force, with who and why."""

    reason: str
    by: str


class EndUserUrlsView(TypedDict):
    """Where more is."""

    self: str


@documented
class EndUserSummaryView(TypedDict):
    """An end user of the app with checks, blocks, warnings or a quarantine."""

    safety_identifier: str
    state: State
    """`near_miss`: has blocks in the window, but fewer than put into quarantine."""
    newest_at: datetime | None
    """Of the newest entry in the ledger."""
    counts: EndUserCountsView
    ledger: LedgerView
    blocks_to_quarantine: int | None
    """Of a near miss: so many more blocks in the window put the end user into quarantine."""
    quarantine: QuarantineReasonView | None
    urls: EndUserUrlsView


class EndUserListView(TypedDict):
    """A page of the app's end users, those with the newest entries first."""

    object: Literal["list"]
    data: list[EndUserSummaryView]
    next_cursor: str | None


class QuarantineLogView(TypedDict):
    """One thing that happened to an end user's quarantine; `until`: its end from then on, null until it is lifted."""

    at: datetime
    act: LogAct
    source: str
    by: str
    reason: str
    until: datetime | None


@documented
class LedgerEntryView(TypedDict):
    """An entry of the ledger."""

    at: datetime
    kind: Kind
    job: str | None
    notice: str | None
    """Of a warning: the provider's notice."""
    url: str | None
    """Of the job."""


class LinkedJobView(TypedDict):
    """A job."""

    id: str
    url: str


class AppealStepView(TypedDict):
    """One thing that was done about an appeal."""

    kind: StepKind
    at: datetime
    by: str
    by_person: str | None
    text: str
    provider_case: str | None
    outcome: AppealOutcome | None
    jobs: list[str]
    notice: str | None


@documented
class AppealView(TypedDict):
    """An appeal as a case, with its steps, the oldest first."""

    id: str
    object: Literal["appeal"]
    state: AppealState
    end_user: NotRequired[str]
    """As it was sent with this request; it is not shown otherwise."""
    safety_identifier: str | None
    reason: str
    provider_case: str | None
    opened_at: datetime
    opened_by: str
    sent_at: datetime | None
    answered_at: datetime | None
    answer: str | None
    closed_at: datetime | None
    outcome: AppealOutcome | None
    jobs: list[LinkedJobView]
    steps: list[AppealStepView]
    urls: EndUserUrlsView


class AppealListView(TypedDict):
    """A page of the app's appeals, newest first."""

    object: Literal["list"]
    data: list[AppealView]
    next_cursor: str | None


@documented
class EndUserView(EndUserSummaryView):
    """An end user of the app, with what led to the state."""

    object: Literal["end_user"]
    end_user: str | None
    """The app's own id, if this request named the end user by it; else it is not shown."""
    limits: int
    """Blocks, of all that the ledger keeps, by which the provider limited this end user."""
    entries: list[LedgerEntryView]
    """The newest 200."""
    quarantine_log: list[QuarantineLogView]
    """The newest 50, newest first."""
    appeals: list[AppealView]
    """The newest 50."""
    jobs: list[LinkedJobView]
    """The newest 20 that are kept."""
    jobs_kept: int


@documented
class DeploymentEndUserView(TypedDict):
    """An end user of some app, as operators see it: counts, without content, names and reasons."""

    app: str
    safety_identifier: str
    state: State
    newest_at: datetime | None
    counts: EndUserCountsView
    ledger: LedgerView
    blocks_to_quarantine: int | None
    quarantine: QuarantineSummaryView | None


class DeploymentEndUserListView(TypedDict):
    """A page of the end users of all apps, those with the newest entries first."""

    object: Literal["list"]
    data: list[DeploymentEndUserView]
    next_cursor: str | None
