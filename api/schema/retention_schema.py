"""The bodies of /v1/retention."""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from worker.jobs.spec import Spec
from worker.jobs.view_schema import documented

_Seconds = Annotated[int, Field(ge=0, le=10**10)] | None


class RetentionRequest(Spec):
    """An app's own times in seconds; null = the deployment's. What is not sent stays as it is."""

    result_seconds: _Seconds = None
    """How long a job and its answer are kept after its end."""
    prompt_seconds: _Seconds = None
    """How long its prompt is kept after its end; at most as long as the answer."""
    audit_seconds: _Seconds = None
    """How long its audit records are kept."""


@documented
class RetentionTimeView(TypedDict):
    """How long one kind of data is kept."""

    seconds: int
    """What applies."""
    own: int | None
    """The app's own time; null: the deployment's applies."""
    minimum: int
    maximum: int


@documented
class RetentionView(TypedDict):
    """How long what belongs to an app is kept. Legal holds, and deletion on request, have priority."""

    app: str
    result: RetentionTimeView
    prompt: RetentionTimeView
    audit: RetentionTimeView
    complete: NotRequired[bool]
    """After a change only. False while it is still being applied to earlier jobs."""
