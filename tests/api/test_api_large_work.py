"""Work on large bodies: one at a time, app by app in turn, and nobody keeps the thread who has left."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from api.runtime.large_work import LargeWork

LARGE = 10**6


@pytest.fixture
def work():
    work = LargeWork()
    yield work
    work.close()


async def test_an_app_with_much_work_does_not_keep_another_waiting(work):
    begin, done = threading.Event(), []
    first = asyncio.create_task(work.run("busy", LARGE, begin.wait))
    await asyncio.sleep(0)
    tasks = [asyncio.create_task(work.run("busy", LARGE, done.append, f"busy {i}")) for i in range(5)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(work.run("other", LARGE, done.append, "other")))
    await asyncio.sleep(0)
    begin.set()
    await asyncio.gather(first, *tasks)
    assert done == ["busy 0", "other", "busy 1", "busy 2", "busy 3", "busy 4"]


async def test_small_work_does_not_wait(work):
    begin = threading.Event()
    first = asyncio.create_task(work.run("app", LARGE, begin.wait))
    await asyncio.sleep(0)
    assert await work.run("app", 10, lambda: "at once") == "at once"
    begin.set()
    await first


@pytest.mark.parametrize("cancelled", ["waiting", "whose turn has come", "at work"])
async def test_who_leaves_passes_the_turn_on(work, cancelled):
    begin = threading.Event()
    first = asyncio.create_task(work.run("a", LARGE, begin.wait))
    await asyncio.sleep(0)
    second, third = (asyncio.create_task(work.run("a", LARGE, str)) for _ in range(2))
    await asyncio.sleep(0)
    if cancelled == "at work":
        first.cancel()
        begin.set()
    else:
        if cancelled == "waiting":
            second.cancel()
        begin.set()
        await first
        second.cancel()
    assert await third == ""
    await asyncio.gather(first, second, return_exceptions=True)
    assert await work.run("b", LARGE, str) == ""


async def test_an_error_is_that_of_the_work(work):
    with pytest.raises(ZeroDivisionError):
        await work.run("a", LARGE, lambda: 1 // 0)
    assert await work.run("a", LARGE, str) == ""


async def ended(work: LargeWork, app: str, name: str, done: list[str], seconds: float = 0.0) -> None:
    await work.run(app, LARGE, time.sleep, seconds)
    done.append(name)


@pytest.mark.parametrize("shared", [True, False])
async def test_an_app_rests_after_long_work_only_while_others_send_requests(shared):
    work, done = LargeWork(lambda: shared), list[str]()
    await ended(work, "busy", "first", done, seconds=0.2)
    tasks = [asyncio.create_task(ended(work, "busy", f"busy {i}", done)) for i in range(2)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(ended(work, "other", "other", done)))
    began = time.monotonic()
    await asyncio.gather(*tasks)
    if shared:
        assert done == ["first", "other", "busy 0", "busy 1"]
        assert time.monotonic() - began > 0.5
    else:
        assert done == ["first", "busy 0", "busy 1", "other"]
    work.close()


async def test_a_rest_ends_once_the_app_is_alone():
    shared = True
    work, done = LargeWork(lambda: shared), list[str]()
    await ended(work, "busy", "first", done, seconds=0.2)
    shared = False
    began = time.monotonic()
    await ended(work, "busy", "second", done)
    assert time.monotonic() - began < 0.5
    work.close()


async def test_who_leaves_during_the_apps_rest_keeps_nobody_waiting():
    work, done = LargeWork(lambda: True), list[str]()
    await ended(work, "busy", "first", done, seconds=0.1)
    gone, stays = (asyncio.create_task(ended(work, "busy", name, done)) for name in ("gone", "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, stays, return_exceptions=True)
    assert done == ["first", "stays"]
    work.close()
