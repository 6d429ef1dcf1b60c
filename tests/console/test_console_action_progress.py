"""The progress of an action on many jobs adds up, fits into an address, and belongs to the session that signed it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api.console.action_progress import MAX_JOBS, MAX_NAMED, ActionProgress, open_progress
from worker.jobs import ids

SECRET = "the session's"
BEGUN = ActionProgress(
    "a" * 20,
    "cancel",
    (("status", "queued"), ("end_user", "anna \u00e4")),
    500,
    matched_all=True,
    started_ms=1,
    at_ms=1,
)


def part(done=0, refused=(), cursor=None):
    rows = [{"id": str(n), "status": 200, "outcome": "done"} for n in range(done)]
    for job_id, code in refused:
        problem = {"code": code, "detail": f"why {code}"}
        rows.append({"id": job_id, "status": 409, "outcome": "refused", "problem": problem})
    return {"data": rows, "done": done, "unchanged": 0, "refused": len(refused), "next_cursor": cursor}


def test_parts_add_up_by_reason():
    one = BEGUN.after(part(3, [("job_a", "blocked"), ("job_b", "blocked")], "more"), 5)
    assert not one.ended
    two = one.after(part(1, [("job_c", "not_settled")]), 9)
    assert (two.done, two.refused, two.handled, two.ended, two.is_cut) == (4, 3, 7, True, False)
    assert [(one.code, one.number, one.detail) for one in two.refusals] == [
        ("blocked", 2, "why blocked"),
        ("not_settled", 1, "why not_settled"),
    ]
    assert two.failed == (("job_a", "blocked"), ("job_b", "blocked"), ("job_c", "not_settled"))


def test_it_ends_at_its_bound_and_says_that_there_may_be_more():
    far = replace(BEGUN, done=MAX_JOBS - 1).after(part(1, cursor="more"), 5)
    assert (far.ended, far.is_cut) == (True, True)


def test_it_survives_its_address_which_stays_short():
    names = [(ids.new_id("job", 1_764_500_000_000 + n, bytes([n % 250] * 10)), "not_settled") for n in range(300)]
    far = BEGUN.after(part(0, names, "more"), 5)
    assert (far.refused, len(far.failed)) == (300, MAX_NAMED)
    sealed = far.sealed(SECRET)
    assert open_progress(SECRET, sealed) == far
    assert len(sealed) < 3_500


@pytest.mark.parametrize(
    "change", [lambda text: text[:-2], lambda text: "A" + text[1:], lambda _: "", lambda _: "\u00e4.x"]
)
def test_nobody_else_can_make_one(change):
    sealed = BEGUN.sealed(SECRET)
    assert open_progress("another", sealed) is None
    assert open_progress(SECRET, change(sealed)) is None
