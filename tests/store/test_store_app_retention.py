"""Retention per app: within the deployment's bounds, at the end of each job, of what there is, and of the trail."""

from __future__ import annotations

import pytest
from builders import COMPLETED, STARTED, FakeClock, began, done, new_job

from worker.audit.keys import Signer, TrustedKeys
from worker.audit.seals import checkpoint
from worker.clock import Clock
from worker.jobs.errors import Refused
from worker.settings import Settings
from worker.store import keys
from worker.store.admission.app_retention import AppRetention, check, dump, effective, kept_times, load
from worker.store.apps import Apps
from worker.store.audit.acts import Actor
from worker.store.audit.hold_names import app_chain
from worker.store.audit.seals import Seals
from worker.store.audit.trail import Trail
from worker.store.audit.verification import TrailVerification
from worker.store.jobs.repository import Jobs, retention_of
from worker.store.lifecycle.legal_holds import LegalHolds
from worker.store.lifecycle.retention import Retention
from worker.store.lifecycle.retention_change import RetentionChange

DAY = 86_400
NORMAL = [(STARTED, None), (began(), 1), (done(), 1), (COMPLETED, 1)]
LEE = Actor("lee", via="cli")
SIGNER = Signer(b"s" * 32)


def settings_of(**more) -> Settings:
    return Settings(_env_file=None, **{"result_ttl": 10 * DAY, "audit_ttl": 20 * DAY, **more})


def test_times_stay_within_the_bounds_of_the_deployment():
    settings = settings_of(prompt_ttl=5 * DAY, audit_max_ttl=90 * DAY)
    assert effective(AppRetention(), settings) == {"result": 10 * DAY, "prompt": 5 * DAY, "audit": 20 * DAY}
    own = AppRetention(result=DAY, prompt=2 * DAY, audit=90 * DAY)
    check(own, settings)
    assert effective(own, settings) == {"result": DAY, "prompt": DAY, "audit": 90 * DAY}
    narrower = settings_of(result_ttl=3600, audit_ttl=DAY)
    assert effective(own, narrower) == {"result": 3600, "prompt": 3600, "audit": DAY}, "settings that came later win"
    assert (kept_times(own, settings), kept_times(AppRetention(audit=90 * DAY), settings)) == (f"{DAY} {DAY}", "")
    for wrong in ({"result": 11 * DAY}, {"result": 59}, {"prompt": 6 * DAY}, {"audit": 19 * DAY}, {"audit": 91 * DAY}):
        with pytest.raises(Refused, match=f"{next(iter(wrong))} must be"):
            check(AppRetention(**wrong), settings)
    with pytest.raises(Refused, match="audit must be"):
        check(AppRetention(audit=21 * DAY), settings_of())
    assert load(b'{"retention":{"result":60}}') == AppRetention(result=60)
    assert (load(b"{}"), dump(AppRetention()), dump(own)["prompt"]) == (None, None, 2 * DAY)


async def test_a_change_applies_to_jobs_that_end_later_and_to_those_that_are_over(redis, clock):
    settings = settings_of()
    jobs, change = Jobs(redis, clock, retention_of(settings)), RetentionChange(redis, clock, settings)
    await Apps(redis, clock).create_key("shop", ("submit",))

    async def job(*drafts) -> str:
        made = (await jobs.submit(new_job(app="shop")))[0].job.id
        if drafts:
            await jobs.change(made, lambda _: drafts)
        return made

    over, under_way = await job(*NORMAL), await job()
    assert await redis.ttl(keys.job(over)) > 9 * DAY
    own = AppRetention(result=DAY, prompt=3600)
    await change.set("shop", own, LEE)
    await jobs.change(under_way, lambda _: NORMAL)
    assert 0 < await redis.ttl(keys.job_input(under_way)) <= 3600 < await redis.ttl(keys.job(under_way)) <= DAY
    assert await redis.ttl(keys.job(over)) > 9 * DAY
    await change.apply("shop", own)
    assert 0 < await redis.ttl(keys.job_input(over)) <= 3600 < await redis.ttl(keys.job(over)) <= DAY
    assert abs(await redis.zscore(keys.SETTLED, over) - await redis.zscore(keys.SETTLED, under_way)) < 600_000

    await LegalHolds(redis, clock, retention_of(settings)).place(app_chain("shop"), actor=LEE, why="case")
    await change.set("shop", AppRetention(prompt=0), LEE)
    await change.apply("shop", AppRetention(prompt=0))
    assert await redis.ttl(keys.job_input(over)) == -1, "a hold has priority"
    await LegalHolds(redis, clock, retention_of(settings)).release(app_chain("shop"), actor=LEE, why="closed")
    assert 0 < await redis.ttl(keys.job_input(over)) <= 60, "at least a minute after a hold"
    assert await redis.ttl(keys.job(over)) > 9 * DAY
    await change.apply("shop", AppRetention(prompt=0))
    assert await redis.exists(keys.job_input(over)) == 0, "what is over goes at once"
    notes = [row for row in await Trail(redis, clock).of_chain("app:shop") if b"app.changed" in row.record]
    assert [b'"changes":{"retention":' in row.record for row in notes] == [True, True]
    with pytest.raises(Refused, match="no app nobody"):
        await change.set("nobody", own, LEE)


async def test_an_app_may_keep_its_trail_longer_than_others_and_not_for_ever(redis):
    settings, clock = settings_of(result_ttl=60, audit_ttl=DAY, audit_max_ttl=30 * DAY), FakeClock(Clock().now())
    jobs, seals, trail = Jobs(redis, clock, retention_of(settings)), Seals(redis), Trail(redis, clock)
    retention = Retention(redis, clock, retention_of(settings))
    for app in ("bank", "shop"):
        await Apps(redis, clock).create_key(app, ("submit",))
    await RetentionChange(redis, clock, settings).set("bank", AppRetention(audit=10 * DAY), LEE)
    kept = 1 + len(NORMAL)

    async def grow() -> None:
        for app in ("bank", "shop"):
            made = (await jobs.submit(new_job(app=app)))[0].job.id
            await jobs.change(made, lambda _: NORMAL)
            await redis.delete(keys.job(made), keys.trail(made))  # its time in Redis is over
        last = await seals.last()
        while rows := await trail.page(f"({last.last}" if last else "-", count=4):
            last, before = checkpoint(SIGNER, last, rows, clock.now()), last
            assert await seals.append(before, last)

    async def verified():
        report = await TrailVerification(redis, clock, TrustedKeys([SIGNER.public])).verify()
        assert report.good, report.faults
        return report

    await grow()
    clock.step(2 * DAY)
    await retention.trim(SIGNER)
    assert (await verified()).kept >= kept
    assert {row.record[:14] for row in await trail.page("-")} >= {b'{"app":"bank",'}
    assert not [row for row in await trail.page("-") if row.record.startswith(b'{"app":"shop"')]
    clock.step(9 * DAY)
    await redis.delete(keys.RETENTION_AGAIN)  # six hours in the time of Redis
    await retention.trim(SIGNER)
    assert not [row for row in await trail.page("-") if b'"job.completed"' in row.record], "it is over for the bank too"
    assert (await verified()).kept == 0
