"""Background responses: they go on alone, can be polled, resumed and cancelled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from waiting import LIMIT

from worker.simulator import Simulator

Until = Callable[[Callable[[], bool]], Awaitable[None]]

SOL = "gpt-5.6-sol"


async def numbers(stream: Any) -> list[int]:
    """Return the sequence numbers until the stream ends or breaks."""
    seen: list[int] = []
    try:
        async for event in stream:
            seen.append(event.sequence_number)  # noqa: PERF401 - those before a break count
    except openai.APIConnectionError:
        pass
    return seen


async def poll(client: AsyncOpenAI, response_id: str) -> Any:
    """Return the response when it has ended."""
    async with asyncio.timeout(LIMIT):
        while True:
            found = await client.responses.retrieve(response_id)
            if found.status not in {"queued", "in_progress"}:
                return found


async def test_polling_sees_the_response_end(client: AsyncOpenAI) -> None:
    made = await client.responses.create(model=SOL, input="hello", background=True)
    assert (made.status, made.background) == ("queued", True)
    done = await poll(client, made.id)
    assert (done.status, done.id, bool(done.output_text)) == ("completed", made.id, True)


async def test_polling_tells_the_precise_code_of_a_block(client: AsyncOpenAI) -> None:
    for scenario, code in [("check_then_block", "cyber_policy"), ("bio_block", "bio_policy")]:
        made = await client.responses.create(model=SOL, input=f"[[sim: {scenario}]]", background=True)
        done = await poll(client, made.id)
        assert (done.status, done.error.code) == ("failed", code)


async def test_a_cut_stream_is_resumed_at_the_next_number(client: AsyncOpenAI, sim: Simulator) -> None:
    stream = await client.responses.create(
        model=SOL, input="[[sim: cut after=6]] x", background=True, stream=True, store=True
    )
    first = await anext(stream)
    seen = [first.sequence_number, *await numbers(stream)]
    assert seen == list(range(6))
    again = await client.responses.retrieve(first.response.id, stream=True, starting_after=5)
    found = [event async for event in again]
    assert [event.sequence_number for event in found] == list(range(6, 6 + len(found)))
    assert found[-2].type == "response.completed"
    calls = sim.calls()
    assert (calls["creates"], calls["resumes"], calls["cut"]) == (1, 1, 1)
    assert calls["tokens_billed"]["output"] == 20


async def test_a_resume_replays_the_very_same_bytes(client: AsyncOpenAI) -> None:
    async def lines(context: Any) -> list[str]:
        async with context as answer:
            return [line async for line in answer.iter_lines() if line.startswith("data:")]

    create = client.responses.with_streaming_response.create(model=SOL, input="x", background=True, stream=True)
    first = await lines(create)
    response_id = first[0].partition('"id":"')[2].partition('"')[0]
    retrieve = client.responses.with_streaming_response.retrieve(response_id, stream=True, starting_after=2)
    assert await lines(retrieve) == first[3:]


async def test_a_connection_may_break_several_times(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(
        model=SOL, input="[[sim: cut times=3 after=7]]", background=True, stream=True
    )
    first = await anext(stream)
    seen = [0, *await numbers(stream)]
    for _ in range(3):
        seen += await numbers(await client.responses.retrieve(first.response.id, stream=True, starting_after=seen[-1]))
    assert seen == list(range(30))


async def test_a_resume_follows_live(slow_client: AsyncOpenAI) -> None:
    made = await slow_client.responses.create(model=SOL, input="[[sim: silent_delay]]", background=True, stream=True)
    first = await anext(made)
    await made.close()
    other = await slow_client.responses.retrieve(first.response.id, stream=True, starting_after=0)
    assert await numbers(other) == list(range(1, 30))


async def test_a_refused_resume_falls_back_to_polling(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(model=SOL, input="[[sim: resume_refused]]", background=True, stream=True)
    first = await anext(stream)
    await numbers(stream)
    with pytest.raises(openai.BadRequestError, match="more than 5 minutes old"):
        await client.responses.retrieve(first.response.id, stream=True, starting_after=3)
    assert (await poll(client, first.response.id)).status == "completed"


async def test_a_lost_response_is_gone(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(model=SOL, input="[[sim: response_lost]]", background=True, stream=True)
    first = await anext(stream)
    await numbers(stream)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(first.response.id)


async def test_only_background_streams_are_resumable(client: AsyncOpenAI) -> None:
    front = await client.responses.create(model=SOL, input="x")
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(front.id, stream=True)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve("resp_none", stream=True)
    plain = await client.responses.create(model=SOL, input="x", background=True)
    with pytest.raises(openai.BadRequestError):
        await client.responses.retrieve(plain.id, stream=True)


async def test_cancel_is_for_background_and_may_be_repeated(client: AsyncOpenAI, sim: Simulator) -> None:
    made = await client.responses.create(model=SOL, input="[[sim: queued_forever]]", background=True, stream=True)
    first = await anext(made)
    for _ in range(2):
        assert (await client.responses.cancel(first.response.id)).status == "cancelled"
    assert await numbers(made) == [1]  # the stream ends without a terminal event
    front = await client.responses.create(model=SOL, input="x")
    with pytest.raises(openai.BadRequestError):
        await client.responses.cancel(front.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.cancel("resp_none")
    assert sim.calls()["cancels"] == 4


async def test_delete_forgets(client: AsyncOpenAI) -> None:
    made = await client.responses.create(model=SOL, input="[[sim: queued_forever]]", background=True)
    await client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)


async def test_a_background_response_does_not_mind_a_lost_client(slow_client: AsyncOpenAI, slow: Simulator) -> None:
    stream = await slow_client.responses.create(model=SOL, input="hello", background=True, stream=True)
    first = await anext(stream)
    await stream.close()
    assert (await poll(slow_client, first.response.id)).status == "completed"
    assert slow.calls()["tokens_billed"]["output"] == 20
    assert slow.calls()["aborted"] == 0


async def test_a_foreground_stream_stops_with_its_client(
    slow_client: AsyncOpenAI, slow: Simulator, until: Until
) -> None:
    stream = await slow_client.responses.create(model=SOL, input="[[sim: normal tokens=5000]]", stream=True)
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    assert slow.calls()["open_streams"] == 1
    await stream.close()
    await until(lambda: slow.calls()["open_streams"] == 0)
    calls = slow.calls()
    assert calls["aborted"] == 1
    assert 0 < calls["tokens_billed"]["output"] < 5000
    assert calls["calls"][0]["ended"] == "aborted"


async def test_an_answer_in_one_piece_stops_with_its_client_too(
    slow_client: AsyncOpenAI, slow: Simulator, until: Until
) -> None:
    message = {"role": "user", "content": "[[sim: silent_delay hold=80000]]"}
    asks = [
        slow_client.responses.create(model=SOL, input="[[sim: silent_delay hold=80000]]"),
        slow_client.chat.completions.create(model=SOL, messages=[message]),
        slow_client.chat.completions.create(model=SOL, messages=[message], stream=True),
    ]
    tasks = [asyncio.ensure_future(ask) for ask in asks]
    await until(lambda: len(slow.calls()["calls"]) == 3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for stream in [task.result() for task in tasks if not task.cancelled()]:
        await stream.close()
    await until(lambda: slow.calls()["aborted"] == 3)
    assert slow.calls()["tokens_billed"] == {"input": 0, "output": 0}
