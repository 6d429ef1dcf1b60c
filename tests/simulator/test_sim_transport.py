"""How connections break, seen from a bare socket."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import openai
import pytest
from openai import AsyncOpenAI
from waiting import LIMIT, stopwatch

from worker.simulator import Simulator

Until = Callable[[Callable[[], bool]], Awaitable[None]]

END = b"0\r\n\r\n"  # the last chunk of a clean chunked end


async def raw(sim: Simulator, text: str, *, stream: bool = True, seconds: float = LIMIT) -> tuple[bytes, bool]:
    """POST by hand; return all bytes that came in so many seconds and whether the end was a reset."""
    where = urlsplit(sim.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    body = json.dumps({"model": "gpt-5.6-sol", "input": text, "stream": stream}).encode()
    head = (
        "POST /v1/responses HTTP/1.1\r\nHost: sim\r\nAuthorization: Bearer k\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    got, was_reset = b"", False
    try:
        async with asyncio.timeout(seconds):
            while part := await reader.read(65536):
                got += part
    except ConnectionResetError:
        was_reset = True
    except TimeoutError:
        got += b"<silence>"
    writer.close()
    return got, was_reset


async def test_a_whole_stream_ends_with_the_last_chunk(sim: Simulator) -> None:
    got, was_reset = await raw(sim, "hello")
    assert got.endswith(END)
    assert not was_reset
    assert got.count(b"sequence_number") == 29
    assert b"\r\ncontent-type: text/event-stream; charset=utf-8\r\n" in got.lower()


@pytest.mark.parametrize(
    ("how", "tail", "was_reset"),
    [
        ("rst", b"", True),
        ("fin", b"", False),
        ("clean", END, False),
        ("half", END, False),
        ("hang", b"<silence>", False),
    ],
)
async def test_a_cut(sim: Simulator, how: str, tail: bytes, was_reset: bool) -> None:
    got, reset = await raw(sim, f"[[sim: cut how={how} after=5]]", seconds=3 if how == "hang" else LIMIT)
    assert reset is was_reset
    assert got.endswith(tail)
    assert got.endswith(END) is (tail == END)
    assert b'"sequence_number":4' in got
    assert b'"sequence_number":5,"item' not in got or how == "fin"
    assert b"response.completed" not in got
    if how == "half":
        assert got.removesuffix(b"\r\n" + END).endswith(b'data: {"type":"response.outp')


async def test_a_bad_frame_takes_the_place_of_an_event(sim: Simulator) -> None:
    got, _ = await raw(sim, "[[sim: bad_json after=5]]")
    assert b'"sequence_number":5,' not in got
    assert b"response.completed" in got
    assert got.endswith(END)


async def test_an_end_without_terminal_event(sim: Simulator) -> None:
    got, _ = await raw(sim, "[[sim: no_terminal]]")
    assert b"response.output_text.done" in got
    assert b"response.completed" not in got
    assert got.endswith(END)


async def test_a_drop_comes_before_any_byte(sim: Simulator) -> None:
    assert await raw(sim, "[[sim: drop]]") == (b"", True)
    got, _ = await raw(sim, "[[sim: drop]]")
    assert got.endswith(END)


@pytest.mark.parametrize("how", ["rst", "fin", "half", "hang"])
async def test_an_answer_in_one_piece_breaks_too(sim: Simulator, how: str) -> None:
    got, was_reset = await raw(sim, f"[[sim: cut how={how}]]", seconds=3 if how == "hang" else LIMIT, stream=False)
    assert was_reset is (how == "rst")
    assert b'"usage"' not in got
    assert got.endswith(b"<silence>") is (how == "hang")


async def test_the_sdk_sees_a_cut_as_a_connection_error(client: AsyncOpenAI) -> None:
    for how in ("rst", "fin"):
        stream = await client.responses.create(model="gpt-5.6-sol", input=f"[[sim: cut how={how}]]", stream=True)
        with pytest.raises(openai.APIConnectionError):
            async for _ in stream:
                pass


async def test_a_hanging_socket_is_closed_when_the_client_leaves(sim: Simulator, until: Until) -> None:
    await raw(sim, "[[sim: hang]]", seconds=0.5)
    await until(lambda: sim.calls()["open_streams"] == 0)
    assert (sim.calls()["cut"], sim.calls()["aborted"]) == (1, 0)


async def test_it_stops_at_once_with_many_open_streams(sim: Simulator, until: Until) -> None:
    async def listen() -> None:
        await raw(sim, "[[sim: silent_delay hold=80000]]")

    tasks = [asyncio.create_task(listen()) for _ in range(50)]
    await until(lambda: sim.calls()["open_streams"] == 50)
    async with stopwatch() as watch:
        await sim.stop()
        assert watch.seconds < 2
    await asyncio.gather(*tasks)
    await sim.start()  # and again on the same port
    assert (await raw(sim, "hello"))[0].endswith(END)
