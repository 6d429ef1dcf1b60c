"""An appeal against a block or a quarantine, as a case: what was asked, sent and answered, by whom, and its outcome.

Pure. A case goes from open to closed by steps; each is kept with the person who took it. Its texts are people's words
about an end user: sealed where they are stored, and never in the audit trail.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, Literal, assert_never

from worker.jobs.errors import Refused
from worker.jobs.frozen import Stored, StoredRecord

AppealState = Literal["open", "sent", "answered", "closed"]
AppealOutcome = Literal["upheld", "overturned", "withdrawn"]
"""`upheld`: the block or quarantine stays; `overturned`: it was wrong; `withdrawn`: nobody asks any more."""
StepKind = Literal["opened", "sent", "answered", "closed", "note", "jobs", "notice"]

MAX_TEXT: Final = 4_000
"""Characters of a reason, an answer or a note."""
MAX_JOBS: Final = 100
MAX_STEPS: Final = 200
"""Beside the one that closes it."""
_CASE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")
_FROM: Final[dict[str, tuple[AppealState, ...]]] = {
    "sent": ("open", "answered"),
    "answered": ("sent",),
    "upheld": ("open", "answered"),
    "overturned": ("open", "answered"),
    "withdrawn": ("open", "sent", "answered"),
}
"""The states in which a step may be taken, or an outcome recorded."""


class AppealStep(Stored):
    """One thing that was done about an appeal."""

    kind: StepKind
    at: datetime
    by: str
    """The key's id; `provider` for a notice that came by itself."""
    by_person: str = ""
    """Who has that key, if that is stated."""
    text: str = ""
    provider_case: str | None = None
    outcome: AppealOutcome | None = None
    jobs: tuple[str, ...] = ()
    """Those that this step linked."""
    notice: str | None = None
    """The provider's notice that this step linked."""


class Appeal(StoredRecord):
    """An appeal of an app's end user, or about jobs of the app, with all its steps, the oldest first."""

    id: str
    app: str
    state: AppealState
    safety_identifier: str | None
    opened_at: datetime
    reason: str
    provider_case: str | None = None
    """The id of the case at the provider; its notices that name it are linked."""
    sent_at: datetime | None = None
    answered_at: datetime | None = None
    answer: str | None = None
    closed_at: datetime | None = None
    outcome: AppealOutcome | None = None
    jobs: tuple[str, ...] = ()
    steps: tuple[AppealStep, ...] = ()


def open_appeal(appeal_id: str, app: str, person: str | None, step: AppealStep) -> Appeal:
    """Return the appeal that this step opens. Raises Refused for one of nobody and nothing."""
    if person is None and not step.jobs:
        raise Refused("appeal_of_nothing", "An appeal is of an end user, or about jobs: name one of them.", 422)
    appeal = Appeal(
        id=appeal_id, app=app, state="open", safety_identifier=person, opened_at=step.at, reason=_text(step, need=True)
    )
    return _with(appeal, step)


def take_step(appeal: Appeal, step: AppealStep) -> Appeal:
    """Return the appeal after this step. Raises Refused for one that its state does not allow, or without its text."""
    if appeal.state == "closed":
        raise Refused("appeal_closed", "This appeal is closed, and stays as it is: open another one.", 409)
    if len(appeal.steps) >= MAX_STEPS and step.kind != "closed":  # or it would stay open for ever
        raise Refused(
            "appeal_too_long", f"An appeal has at most {MAX_STEPS} steps: close it and open another one.", 409
        )
    match step.kind:
        case "opened":
            raise Refused("appeal_is_open", "This appeal is open already.", 409)
        case "sent":
            _require(appeal, "sent")
            return _with(appeal.evolve(state="sent", sent_at=step.at, answered_at=None), step)
        case "answered":
            _require(appeal, "answered")
            return _with(appeal.evolve(state="answered", answered_at=step.at, answer=_text(step, need=True)), step)
        case "closed":
            _require(appeal, step.outcome or "")
            return _with(appeal.evolve(state="closed", closed_at=step.at, outcome=step.outcome), step)
        case "note":
            _text(step, need=True)
            return _with(appeal, step)
        case "jobs":
            _require_new_jobs(appeal, step)
            return _with(appeal, step)
        case "notice":
            return _with(appeal, step)
        case _:
            assert_never(step.kind)


def has_notice(appeal: Appeal, notice: str) -> bool:
    """Return whether this notice of the provider is linked."""
    return any(step.notice == notice for step in appeal.steps)


def is_case_id(text: str) -> bool:
    """Return whether the text could be the id of a case at the provider."""
    return _CASE.fullmatch(text) is not None


def _require_new_jobs(appeal: Appeal, step: AppealStep) -> None:
    if not set(step.jobs) - set(appeal.jobs):
        raise Refused("already_linked", "The appeal is linked to these jobs already.", 409)


def _require(appeal: Appeal, what: str) -> None:
    """Raise Refused if `what`, a step or an outcome, does not follow the appeal's state."""
    allowed = _FROM.get(what)
    if allowed is None:
        raise Refused("invalid_outcome", "An appeal is closed with an outcome.", 422)
    if appeal.state in allowed:
        return
    after = "answered" if what in ("upheld", "overturned") and appeal.state == "sent" else None
    hint = "record the provider's answer first, or close it as withdrawn" if after else f"it is {appeal.state} now"
    states = " or ".join(allowed)
    raise Refused("invalid_transition", f"`{what}` follows only an appeal that is {states}: {hint}.", 409)


def _text(step: AppealStep, *, need: bool = False) -> str:
    if len(step.text) > MAX_TEXT or (need and not step.text.strip()):
        raise Refused("invalid_text", f"The text has 1 to {MAX_TEXT} characters.", 422)
    return step.text


def _with(appeal: Appeal, step: AppealStep) -> Appeal:
    """Return the appeal with this step, and with the jobs and the case that it names."""
    _text(step)
    jobs = tuple(dict.fromkeys((*appeal.jobs, *step.jobs)))
    if len(jobs) > MAX_JOBS:
        raise Refused("too_many_jobs", f"An appeal is linked to at most {MAX_JOBS} jobs.", 422)
    if step.provider_case is not None and not is_case_id(step.provider_case):
        detail = "A case id has 1 to 200 letters, digits, and . _ : / - between them."
        raise Refused("invalid_case", detail, 422)
    case = step.provider_case or appeal.provider_case
    return appeal.evolve(jobs=jobs, provider_case=case, steps=(*appeal.steps, step))
