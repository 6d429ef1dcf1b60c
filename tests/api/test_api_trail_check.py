"""The API verifies the trail when asked, in slices: it goes on serving meanwhile, and one run is enough at a time."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest
from api_server import AdjustableClock
from in_process import until

from api.runtime.background_work import BackgroundWork
from api.runtime.trail_check import TrailCheck
from worker.audit.keytext import as_text
from worker.jobs.states import Status
from worker.settings import Settings
from worker.store import keys
from worker.store.jobs.repository import Jobs

sys.path.append(str(Path(__file__).parents[1] / "store"))
from sealed_trail import SIGNER, SealedTrail, altered


@pytest.fixture
async def background():
    work = BackgroundWork()
    yield work
    await work.stop()


async def checked(check: TrailCheck) -> None:
    async def over() -> bool:
        return not check.state.running

    await until("the end of the verification", over)


def settings_with(*public: bytes, folder: Path) -> Settings:
    return Settings(_env_file=None, data_dir=folder, audit_public_keys=tuple(map(as_text, public)))


async def test_a_good_trail_is_good_and_the_loop_serves_others_meanwhile(redis, tmp_path, background):
    clock = AdjustableClock()
    sealed = SealedTrail(redis, clock, Jobs(redis, clock))
    await sealed.fill(400, size=1_000, concurrency=50)
    await sealed.seal(1_000)
    check = TrailCheck(redis, clock, settings_with(SIGNER.public, folder=tmp_path), background)
    assert check.state.report is None
    assert check.start() is True
    assert check.start() is False, "one at a time"
    longest, seen = 0.0, set[int]()
    while check.state.running:
        began = time.thread_time()  # not the clock's: others may keep this machine busy
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - began)
        seen.add(check.state.records)
    assert check.state.report is not None
    assert check.state.report.good, check.state.report.faults
    assert check.state.records == check.state.total > 1_500
    assert len(seen) > 4, "its progress can be seen"
    assert longest < 0.05, longest
    assert check.start() is False, "not again at once"
    clock.ahead = 60
    assert check.start() is True
    await checked(check)


async def test_a_changed_record_is_named(redis, tmp_path, background):
    clock = AdjustableClock()
    sealed = SealedTrail(redis, clock, Jobs(redis, clock))
    await sealed.fill(20)
    rows = await sealed.rows()
    rows[7] = altered(rows[7])
    await sealed.rebuild(rows)
    check = TrailCheck(redis, clock, settings_with(SIGNER.public, folder=tmp_path), background)
    check.start()
    await checked(check)
    assert check.state.report is not None
    assert check.state.report.faults[0].record == rows[7].id


async def test_without_a_public_key_it_says_so_and_accuses_nobody(redis, tmp_path, background):
    clock = AdjustableClock()
    sealed = SealedTrail(redis, clock, Jobs(redis, clock))
    await sealed.fill(4)
    check = TrailCheck(redis, clock, settings_with(folder=tmp_path), background)
    check.start()
    await checked(check)
    assert (check.state.failure, check.state.report) == ("no_key", None)


async def test_it_ends_with_the_process(redis, tmp_path, clock):
    background = BackgroundWork()
    sealed = SealedTrail(redis, clock, Jobs(redis, clock))
    await sealed.fill(20)
    check = TrailCheck(redis, clock, settings_with(SIGNER.public, folder=tmp_path), background)
    check.start()
    await asyncio.sleep(0)
    await background.stop()
    assert not check.state.running
    assert await redis.zcard(keys.index("shop", "status", Status.COMPLETED))
