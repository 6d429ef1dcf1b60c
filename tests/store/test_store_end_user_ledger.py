"""End users with checks, blocks or warnings are listed by app, near misses too, with the jobs behind their entries."""

from __future__ import annotations

import pytest
from builders import BLOCKED, STARTED, began, done, new_job, noticed

from worker.jobs import events as ev
from worker.jobs.states import CheckEnd, Outcome
from worker.store import keys
from worker.store.end_users import ledger_entries
from worker.store.end_users.end_user_ledger import EndUserLedger
from worker.store.end_users.quarantine import Quarantine

ANN, BOB, EVE = "a" * 64, "b" * 64, "e" * 64
CHECKED = [(STARTED, None), (began(), 1), (noticed(), 1), (ev.CheckEnded(ended_by=CheckEnd.OUTPUT), 1)]
REFUSED = [(STARTED, None), (began(), 1), (done(Outcome.BLOCKED), 1), (BLOCKED, 1)]


@pytest.fixture
def ledger(redis, clock) -> EndUserLedger:
    return EndUserLedger(redis, clock, 86_400)


async def lived(jobs, clock, person, drafts, app="shop"):
    clock.step(1)
    job_id = (await jobs.submit(new_job(safety_identifier=person, app=app)))[0].job.id
    await jobs.change(job_id, lambda _: drafts)
    return job_id


async def test_near_misses_are_listed_and_those_without_entries_are_not(jobs, clock, ledger):
    await lived(jobs, clock, ANN, REFUSED)
    await lived(jobs, clock, BOB, [(STARTED, None)])
    checked = await lived(jobs, clock, EVE, CHECKED)
    await lived(jobs, clock, EVE, REFUSED, app="other")
    found, more = await ledger.flagged("shop", 10)
    assert ([one.safety_identifier for one in found], more) == ([EVE, ANN], False), "the newest first"
    assert [(one.in_window["checks"], one.in_window["blocks"]) for one in found][1] == (0, 1)
    assert not any(one.quarantined for one in found)
    assert (await ledger.flagged("shop", 1))[1] is True
    entries = await ledger.entries(EVE)
    assert checked in [one.job_id for one in entries if one.kind == "checks"]


async def test_a_quarantined_end_user_and_a_warning_show_in_the_list(redis, jobs, clock, ledger):
    quarantine = Quarantine(redis, clock)
    await quarantine.record_warning("shop", ANN, "evt_1", clock.now())
    await quarantine.add("shop", ANN, by="key_ops", reason="seen")
    (one,), _ = await ledger.flagged("shop", 10)
    assert (one.quarantined, one.in_window["warnings"]) == (True, 1)
    (entry,) = await ledger.entries(ANN)
    assert (entry.kind, entry.job_id, entry.notice) == ("warnings", None, "evt_1")


async def test_old_entries_count_in_all_and_no_more_in_the_window(jobs, clock, ledger):
    await lived(jobs, clock, ANN, REFUSED)
    clock.step(2 * 86_400)
    one = await ledger.of("shop", ANN)
    assert one is not None
    assert (one.in_window["blocks"], one.in_all["blocks"]) == (0, 1)


async def test_an_end_user_of_another_app_is_unknown(jobs, clock, ledger):
    await lived(jobs, clock, ANN, REFUSED, app="other")
    assert await ledger.of("shop", ANN) is None
    assert await ledger.of("shop", "nobody") is None


async def test_a_row_that_can_not_be_read_makes_nobody_the_end_user_of_another_app(redis, jobs, clock, ledger):
    await lived(jobs, clock, ANN, REFUSED, app="other")
    await redis.hset(keys.QUARANTINE, ANN, b"nothing that can be read")
    assert await ledger.of("shop", ANN) is None
    assert (await ledger.of("other", ANN)).quarantined


async def test_the_list_is_bounded_and_one_of_another_type_is_set_aside(redis, jobs, clock, ledger, monkeypatch):
    monkeypatch.setattr(ledger_entries, "MAX_FLAGGED", 2)
    for person in (ANN, BOB, EVE):
        await lived(jobs, clock, person, REFUSED)
    assert [one.safety_identifier for one in (await ledger.flagged("shop", 10))[0]] == [EVE, BOB]
    await redis.set(keys.flagged_end_users("shop"), "spoiled")
    assert (await ledger.flagged("shop", 10))[0] == []
    await redis.set(keys.flagged_end_users("shop"), "spoiled")
    await lived(jobs, clock, ANN, REFUSED)
    assert [one.safety_identifier for one in (await ledger.flagged("shop", 10))[0]] == [ANN]
