"""The bodies of /v1/legal-holds."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import TypedDict

from api.schema.requests import EndUser, without_control
from api.schema.responses import ListView
from worker.jobs.spec import Spec
from worker.jobs.view_schema import documented

HoldScopeName = Literal["job", "app", "end_user"]


class LegalHoldRequest(Spec):
    """What is to be kept, or no longer: a job, an end user of the key's app, or all jobs of that app."""

    scope: HoldScopeName
    name: EndUser | None = None
    """The job's id, or the app's own id of the end user; none for the app."""
    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S"), AfterValidator(without_control)]
    """Kept in the audit trail."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.scope != "app" and self.name is None:
            raise ValueError("job and end_user need a name")
        return self


@documented
class LegalHoldView(TypedDict):
    """A legal hold: while it is in force, no content and no audit record of what it names is removed."""

    object: Literal["legal_hold"]
    scope: HoldScopeName
    name: str
    """The job's id, the app, or the end user's safety identifier."""
    reason: str
    by: str
    """The id of the key, or the login of the operator, that placed it."""
    person: str | None
    """Whose key it was, if that is known."""
    since: datetime | None


@documented
class LegalHoldChangeView(LegalHoldView):
    """A hold that was just placed or lifted."""

    complete: bool
    """False while the expiry of earlier jobs is still being changed; the hold itself is in force, or over."""


class LegalHoldListView(ListView):
    """A page of legal holds."""

    data: list[LegalHoldView]
