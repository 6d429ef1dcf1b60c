"""CPU of one streamed delta, from the socket to a value: the SDK's typed stream beside ours, in one run.

    python ops/bench/stream_cpu.py [--streams 200] [--rate 20] [--seconds 8] [--ways typed,worker]

A feeder process sends one event per TCP chunk to every stream; each way is a child process of its own, so that CPU
time is told apart. The ways run at the same time (`--apart`: one after the other). Knows no store: what is
measured ends with the translated event.
"""

# ruff: noqa: PLC0415 - each way imports what it measures, in a process of its own
from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing as mp
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

WAYS: dict[str, Callable[..., Awaitable[None]]] = {}
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_bench\r\n"
    b"openai-organization: org-bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
_SNAPSHOT = {"id": "resp_bench", "object": "response", "status": "in_progress", "model": "gpt-5.6-sol", "output": []}


def _frame(data: dict[str, Any]) -> bytes:
    payload = f"event: {data['type']}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _delta(number: int) -> bytes:
    return _frame(
        {
            "type": "response.output_text.delta",
            "sequence_number": number,
            "item_id": "msg_0123456789abcdef0123456789abcdef",
            "output_index": 0,
            "content_index": 0,
            "delta": " token",
            "logprobs": [],
        }
    )


def feeder(ports: mp.Queue[int], rate: float, seconds: float) -> None:
    """Serve streams until killed: `rate` deltas a second to each, for `seconds`, then the terminal event."""
    # one timer for all streams: a timer for each would cost the machine more than the readers do
    writers: list[asyncio.StreamWriter] = []
    frames = [_delta(number) for number in range(1, int(rate * seconds) + 1)]
    last = _frame({"type": "response.completed", "sequence_number": len(frames) + 1, "response": _SNAPSHOT})

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:"))
        await reader.readexactly(length)
        writer.write(_HEAD + _frame({"type": "response.created", "sequence_number": 0, "response": _SNAPSHOT}))
        asyncio.ensure_future(play(writer))  # noqa: RUF006 - it lives as long as the process

    async def play(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2.0 - time.time() % 1.0)  # noqa: TID251 - all streams of all ways in step, after opening
        loop = asyncio.get_running_loop()
        begun = loop.time() + (hash(writer) % 997) / 997 / rate  # spread over the interval
        for number, frame in enumerate(frames):
            await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))
            writer.write(frame)
        writer.write(last + b"0\r\n\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
        ports.put(server.sockets[0].getsockname()[1])
        writers.clear()
        await server.serve_forever()

    _run(main())


def _way(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    WAYS[function.__name__] = function
    return function


def _sdk(port: int, http_client: Any = None) -> Any:
    import openai

    url = f"http://127.0.0.1:{port}/v1"
    return openai.AsyncOpenAI(api_key="sk-bench", base_url=url, max_retries=0, timeout=None, http_client=http_client)


async def _many(streams: int, one: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(one())  # type: ignore[arg-type]


@_way
async def typed(port: int, streams: int, got: Callable[[], None]) -> None:
    """`client.responses.create(stream=True)`: what most applications do."""
    async with _sdk(port) as client:

        async def one() -> None:
            async for event in await client.responses.create(model="m", input="x", stream=True):
                if event.type == "response.output_text.delta" and event.delta:
                    got()

        await _many(streams, one)


async def _raw(client: Any, streams: int, got: Callable[[], None]) -> None:
    from worker.upstream.payload import parse
    from worker.upstream.sse import SseSplitter
    from worker.upstream.translate import translate

    async def one() -> None:
        create = client.responses.with_streaming_response.create
        async with create(model="m", input="x", stream=True) as response:
            splitter = SseSplitter()
            async for chunk in response.http_response.aiter_raw():
                for payload in splitter.feed(chunk):
                    if type(translate(parse(payload))[-1]).__name__ == "Delta":
                        got()

    await _many(streams, one)


@_way
async def raw_httpx2(port: int, streams: int, got: Callable[[], None]) -> None:
    """Raw bytes through the SDK over httpx2, our splitter and translation."""
    async with _sdk(port) as client:
        await _raw(client, streams, got)


@_way
async def raw_aiohttp(port: int, streams: int, got: Callable[[], None]) -> None:
    """Raw bytes through the SDK over its own aiohttp transport, our splitter and translation."""
    import openai

    async with _sdk(port, openai.DefaultAioHttpClient(timeout=None)) as client:
        await _raw(client, streams, got)


@_way
async def vigil_proxied(port: int, streams: int, got: Callable[[], None]) -> None:
    """Ours over aiohttp, as behind a proxy."""
    from worker.upstream.proxy_transport import ProxyTransport

    await _sessions(port, streams, got, transport=ProxyTransport(connect_timeout=10.0, proxy=None))


@_way
async def vigil(port: int, streams: int, got: Callable[[], None]) -> None:
    """`Session.batches()` as the job shell reads it."""
    await _sessions(port, streams, got)


@_way
async def worker(port: int, streams: int, got: Callable[[], None]) -> None:
    """A whole worker: the same streams judged, kept, and published in pieces to a Redis that flushes each write."""
    import tempfile

    from worker.clock import Clock
    from worker.embedded import EmbeddedValkey
    from worker.jobs.events import Queued
    from worker.main import WorkerProcess
    from worker.settings import Settings
    from worker.store.connection.pool import connect
    from worker.store.jobs.repository import Jobs
    from worker.store.jobs.stored_job import NewJob
    from worker.tasks.execution.output_buffer import OutputBuffer

    keep = OutputBuffer.add

    def counted(self: OutputBuffer, sequence: int | None, text: str) -> None:
        keep(self, sequence, text)
        got()

    OutputBuffer.add = counted  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedValkey(Path(folder)) as valkey:
            redis = connect(valkey.url)
            given = {"redis_url": valkey.url, "max_jobs": streams, "upstream": "stream"}
            address = {"OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
            process = WorkerProcess(Settings(_env_file=None, **given, **address), redis)  # type: ignore[call-arg, arg-type]
            stop, ready = asyncio.Event(), asyncio.Event()
            serving = asyncio.create_task(process.serve(stop, ready))
            await ready.wait()
            jobs = Jobs(redis, Clock())
            fact = Queued(app="bench", key_id="key_bench", requested_model="gpt-5.6-sol")
            for _ in range(streams):
                await jobs.submit(NewJob(fact, {}, {"input": "x"}))
            while await redis.zcard("vigil:leased") + await redis.zcard("vigil:ready"):  # noqa: ASYNC110
                await asyncio.sleep(0.5)
            stop.set()
            await serving
            await redis.aclose()


async def _sessions(port: int, streams: int, got: Callable[[], None], **options: Any) -> None:
    from worker.safety.stream import Delta
    from worker.upstream.call import UpstreamCall
    from worker.upstream.client import Provider
    from worker.upstream.session import Session

    provider = Provider("sk-bench", f"http://127.0.0.1:{port}/v1", **options)

    async def one() -> None:
        session = Session(provider, UpstreamCall(model="m", mode="stream", client_request_id="bench", input="x"))
        async for batch in session.batches():
            for event in batch:
                if type(event) is Delta:
                    got()
        await session.aclose()

    await _many(streams, one)
    await provider.aclose()


def _run(coroutine: Any) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(coroutine)
    else:
        uvloop.run(coroutine)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def child(
    name: str, port: int, streams: int, window: tuple[int, int], results: mp.Queue[tuple[str, int, float]]
) -> None:
    """Read all streams one way; tell how many deltas came and the CPU they took, opening and closing left out."""
    first, last = window
    count, begun, ended = 0, 0.0, 0.0

    def got() -> None:
        nonlocal count, begun, ended
        count += 1
        if count == first:
            begun = _cpu()
        elif count == last:
            ended = _cpu()

    _run(WAYS[name](port, streams, got))
    results.put((name, last - first, ended - begun))


def measure(ways: list[str], streams: int, rate: float, seconds: float, *, apart: bool) -> dict[str, float]:
    """CPU microseconds per delta, by way."""
    context = mp.get_context("spawn")
    ports, results = context.Queue(), context.Queue()
    feed = context.Process(target=feeder, args=(ports, rate, seconds), daemon=True)
    feed.start()
    port = ports.get(timeout=20)
    every = int(rate * seconds) * streams
    window = int(streams * rate * min(1.0, seconds / 4)), int(every * 0.95)
    found: dict[str, float] = {}
    for group in [[way] for way in ways] if apart else [ways]:
        children = [context.Process(target=child, args=(w, port, streams, window, results), daemon=True) for w in group]
        for process in children:
            process.start()
        for _ in children:
            name, deltas, cpu = results.get(timeout=seconds * 4 + 30)
            found[name] = cpu / deltas * 1e6
        for process in children:
            process.join()
    feed.terminate()
    feed.join()
    return found


def main() -> None:
    """Print the table; the ratio is what a noisy machine can be asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", default="typed,worker", help=f"of {', '.join(WAYS)}; the first is the measure")
    parser.add_argument("--apart", action="store_true", help="one way after the other instead of side by side")
    args = parser.parse_args()
    ways = args.ways.split(",")
    rounds = [measure(ways, args.streams, args.rate, args.seconds, apart=args.apart) for _ in range(args.rounds)]
    for name in ways:
        cost = statistics.median(r[name] for r in rounds)
        ratio = statistics.median(r[ways[0]] / r[name] for r in rounds)
        print(f"{name:12} {cost:7.1f} us CPU per delta   {ratio:5.2f} x cheaper than {ways[0]}")


if __name__ == "__main__":
    main()
