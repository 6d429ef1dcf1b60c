"""One attempt over all its connections, against the simulator's scenarios."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from waiting import LIMIT

from tests.upstream.upstream_calls import Rig, call, play
from worker.safety.stream import Closed, Delta, Terminal
from worker.simulator.app import Simulator
from worker.upstream.session import ResumePoint


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(speed=200) as simulator:
        yield simulator


# -- the simulator's scenarios


@pytest.mark.parametrize("how", ["rst", "fin", "clean", "half", "bad_json"])
@pytest.mark.parametrize("after", [3, 6, 9])
async def test_cuts_in_the_simulator(rig: Rig, sim: Simulator, how: str, after: int) -> None:
    session = rig.session(
        sim.url, call("background", input=f"[[sim: cut how={how} after={after} tokens=6]] {how} {after}")
    )
    events = await play(session)
    (end,) = [event for event in events if type(event) is Terminal]
    assert end.status == "completed"
    assert session.resumed == 1
    text = "".join(event.text for event in events if type(event) is Delta)
    assert text == end.output[0]["content"][0]["text"]


async def test_a_refused_resume_in_the_simulator(rig: Rig, sim: Simulator) -> None:
    events = await play(
        rig.session(
            sim.url,
            call("background", input="[[sim: resume_refused tokens=6]] x"),
            sleep=asyncio.sleep,
            poll_interval=0.01,
        )
    )
    assert any(type(event) is Terminal and event.status == "completed" for event in events)


async def test_a_lost_response_in_the_simulator(rig: Rig, sim: Simulator) -> None:
    assert (await play(rig.session(sim.url, call("background", input="[[sim: response_lost tokens=6]] x"))))[
        -1
    ] == Closed("lost")


@pytest.mark.parametrize("mode", ["background", "stream", "chat"])
async def test_the_answer_has_one_shape_in_every_mode(rig: Rig, sim: Simulator, mode: str) -> None:
    events = await play(rig.session(sim.url, call(mode, input="[[sim: normal tokens=5]] same")))
    (end,) = [event for event in events if type(event) is Terminal]
    (item,) = end.output
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"][0]["type"] == "output_text"
    assert item["content"][0]["text"] == "".join(e.text for e in events if type(e) is Delta)
    assert end.usage is not None
    assert end.usage.output_tokens == 5


async def test_a_stuck_response_can_be_cancelled(rig: Rig, sim: Simulator) -> None:
    session = rig.session(sim.url, call("background", input="[[sim: queued_forever]] x"))
    batches = session.batches()
    while session.response_id is None:
        await anext(batches)
    cancelled = await session.cancel()
    assert (cancelled.took_effect, cancelled.status) == (True, "cancelled")
    await batches.aclose()


async def test_closing_hands_over_and_cancels_nothing(rig: Rig, sim: Simulator) -> None:
    first = rig.session(sim.url, call("background", input="[[sim: normal tokens=40 rate=20]] hi"))
    seen = []
    async for batch in first.batches():
        seen += [event.text for event in batch if type(event) is Delta]
        if len(seen) >= 3:
            break
    await first.aclose()
    assert first.response_id is not None
    second = rig.session(sim.url, resume_from=ResumePoint(first.response_id, first.sequence))
    events = await play(second)
    end = events[-1] if type(events[-1]) is Terminal else events[-2]
    assert isinstance(end, Terminal)
    assert end.status == "completed"
    texts = seen + [event.text for event in events if type(event) is Delta]
    assert "".join(texts) == end.output[0]["content"][0]["text"]


@pytest.mark.parametrize("mode", ["background", "stream"])
async def test_who_is_hurried_reads_on_over_a_new_connection_and_never_sends_again(
    rig: Rig, sim: Simulator, mode: str
) -> None:
    """A stream that hangs for ever; only a background response can be read again."""
    session = rig.session(
        sim.url, call(mode, input=f"[[sim: cut how=hang after=6 tokens=8]] {mode}"), expedite_delay=0.01
    )
    seen: list[object] = []

    async def read() -> None:
        async for batch in session.batches():
            seen.extend(batch)
            session.expedite()

    try:
        async with asyncio.timeout(LIMIT if mode == "background" else 0.5):
            await read()
    except TimeoutError:
        assert mode == "stream"
    else:
        assert mode == "background"
        (end,) = [event for event in seen if type(event) is Terminal]
        assert "".join(e.text for e in seen if type(e) is Delta) == end.output[0]["content"][0]["text"]
    await session.aclose()
    assert sim.calls()["creates"] == 1


@pytest.mark.parametrize("name", ["look_limited", "look_overloaded", "late_visible", "snapshot_on_resume"])
async def test_whatever_looks_meet_for_a_while_the_response_is_read_to_its_end(
    rig: Rig, sim: Simulator, name: str
) -> None:
    async def quick(seconds: float) -> None:
        await asyncio.sleep(seconds / 50)

    session = rig.session(sim.url, call("background", input=f"[[sim: {name} tokens=6]] x"), sleep=quick)
    events = await play(session)
    assert any(type(event) is Terminal and event.status == "completed" for event in events)
    assert sim.calls()["creates"] == 1
