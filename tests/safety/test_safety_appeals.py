"""An appeal goes from open to closed by the steps that its state allows, and keeps each with who took it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from worker.jobs.errors import Refused
from worker.safety import appeals
from worker.safety.appeals import Appeal, AppealStep, open_appeal, take_step

T0 = datetime(2026, 12, 1, 12, tzinfo=UTC)
STEPS: dict[str, dict[str, Any]] = {
    "sent": {"kind": "sent", "provider_case": "C-1"},
    "answered": {"kind": "answered", "text": "No."},
    "upheld": {"kind": "closed", "outcome": "upheld", "text": "r"},
    "overturned": {"kind": "closed", "outcome": "overturned", "text": "r"},
    "withdrawn": {"kind": "closed", "outcome": "withdrawn", "text": "r"},
    "note": {"kind": "note", "text": "n"},
    "jobs": {"kind": "jobs", "jobs": ("job_2",)},
}
WAYS = {"open": (), "sent": ("sent",), "answered": ("sent", "answered"), "closed": ("withdrawn",)}
ALLOWED = {
    "open": {"sent", "upheld", "overturned", "withdrawn", "note", "jobs"},
    "sent": {"answered", "withdrawn", "note", "jobs"},
    "answered": {"sent", "upheld", "overturned", "withdrawn", "note", "jobs"},
    "closed": set(),
}


def step(name: str, minutes: int = 0) -> AppealStep:
    return AppealStep(at=T0 + timedelta(minutes=minutes), by="key_1", **STEPS[name])


def opened(**given: Any) -> Appeal:
    first = {"kind": "opened", "at": T0, "by": "key_1", "text": "Why?", "jobs": ("job_1",), **given}
    return open_appeal("appeal_1", "shop", "a" * 64, AppealStep(**first))


def at(state: str) -> Appeal:
    appeal = opened()
    for name in WAYS[state]:
        appeal = take_step(appeal, step(name))
    assert appeal.state == state
    return appeal


@pytest.mark.parametrize(("state", "name"), list(product(WAYS, STEPS)))
def test_each_state_allows_its_own_steps_and_no_others(state: str, name: str) -> None:
    before = at(state)
    if name in ALLOWED[state]:
        assert take_step(before, step(name)).steps[-1] == step(name)
    else:
        with pytest.raises(Refused) as refused:
            take_step(before, step(name))
        assert refused.value.status == 409


def test_the_case_tells_when_each_thing_was_done() -> None:
    appeal = opened()
    for minutes, name in enumerate(("sent", "answered", "overturned"), 1):
        appeal = take_step(appeal, step(name, minutes))
    assert (appeal.provider_case, appeal.answer, appeal.outcome) == ("C-1", "No.", "overturned")
    times = (appeal.opened_at, appeal.sent_at, appeal.answered_at, appeal.closed_at)
    assert times == tuple(T0 + timedelta(minutes=n) for n in range(4))
    assert [(one.kind, one.by) for one in appeal.steps] == [
        (kind, "key_1") for kind in ("opened", "sent", "answered", "closed")
    ]


def test_it_is_of_somebody_or_about_something_and_says_what(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="name one"):
        open_appeal("appeal_1", "shop", None, AppealStep(kind="opened", at=T0, by="key_1", text="Why?"))
    for wrong in ({"text": " "}, {"text": "x" * (appeals.MAX_TEXT + 1)}, {"provider_case": "two words"}):
        with pytest.raises(Refused) as refused:
            opened(**wrong)
        assert refused.value.status == 422
    with pytest.raises(Refused):
        take_step(opened(), AppealStep(kind="jobs", at=T0, by="key_1", jobs=("job_1",)))  # it is linked already
    with pytest.raises(Refused):
        take_step(opened(), AppealStep(kind="closed", at=T0, by="key_1"))  # without an outcome
    monkeypatch.setattr(appeals, "MAX_STEPS", 2)
    full = take_step(opened(), step("note"))
    with pytest.raises(Refused, match="at most 2"):
        take_step(full, step("note"))
    end = AppealStep(kind="closed", at=T0, by="key_1", outcome="withdrawn", text="too long")
    assert take_step(full, end).state == "closed"
    monkeypatch.setattr(appeals, "MAX_JOBS", 1)
    with pytest.raises(Refused, match="at most 1"):
        take_step(opened(), step("jobs"))
