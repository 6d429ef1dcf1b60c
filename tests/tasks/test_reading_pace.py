"""Readers that rest between two looks lose nothing, are woken soon, and don't wait for each other."""

from __future__ import annotations

import asyncio

import pytest
from in_process import Stage
from waiting import stopwatch

from worker.jobs.states import Outcome, Status
from worker.tasks.execution import reading_pace
from worker.tasks.execution.reading_pace import ReadingPace

_CASES = {
    "normal tokens=300 rate=400": (Status.COMPLETED, Outcome.COMPLETED),
    "cut how=rst after=60 tokens=100 rate=400": (Status.COMPLETED, Outcome.COMPLETED),
    "check_then_clear hold=2": (Status.COMPLETED, Outcome.COMPLETED),
    "check_then_block hold=2": (Status.BLOCKED, Outcome.BLOCKED),
    "refusal": (Status.COMPLETED, Outcome.REFUSED),
}


@pytest.mark.parametrize("many", [0, 1_000_000])
async def test_answers_are_the_same_whether_their_readers_rest_or_not(redis, valkey_url, monkeypatch, many):
    monkeypatch.setattr(reading_pace, "MANY_STREAMS", many)
    rested = list[object]()
    rest = ReadingPace.rest

    async def counted(pace: ReadingPace) -> None:
        rested.append(pace)
        await rest(pace)

    monkeypatch.setattr(ReadingPace, "rest", counted)
    async with Stage(redis, valkey_url, speed=2) as stage:
        await stage.worker()
        ids = [await stage.submit(f"[[sim: {scenario}]] go") for scenario in _CASES]
        jobs = [await stage.settled(job_id) for job_id in ids]
        assert [(job.status, job.attempts[-1].outcome) for job in jobs] == list(_CASES.values())
        assert [len(job.attempts) for job in jobs] == [1] * len(jobs), "the cut one was resumed"
        assert len((await stage.output(ids[0]) or "").split()) == 300
    assert bool(rested) is (many == 0)


async def test_a_reader_that_is_cancelled_leaves_the_others_to_be_woken():
    pace = ReadingPace()
    readers = [asyncio.create_task(pace.rest()) for _ in range(20)]
    await asyncio.sleep(0)
    readers[3].cancel()
    async with stopwatch() as watch:
        ends = await asyncio.gather(*readers, return_exceptions=True)
        assert watch.seconds < 2 * reading_pace.SLICE_S + 1
    assert [type(end) for end in ends] == [type(None)] * 3 + [asyncio.CancelledError] + [type(None)] * 16
    await asyncio.wait_for(pace.rest(), 10)  # the timer runs again after it had stopped


async def test_readers_of_different_moments_go_on_in_different_moments():
    pace, woken = ReadingPace(), list[float]()
    loop = asyncio.get_running_loop()

    async def one() -> None:
        await pace.rest()
        woken.append(loop.time())

    readers = list[asyncio.Task[None]]()
    for _ in range(8):
        readers.append(asyncio.create_task(one()))
        await asyncio.sleep(reading_pace.SLICE_S / 8)
    await asyncio.gather(*readers)
    assert len(set(woken)) >= 4
