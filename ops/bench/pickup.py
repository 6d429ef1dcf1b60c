"""Pickup on an idle worker: from just before POST /v1/jobs until the provider has the request, beside plain arq.

    python ops/bench/pickup.py [--jobs 200] [--reference 100] [--json]

As in production: `vigil api`, `vigil worker` and Valkey (flushing before each answer) are processes of their own; the
provider is a tiny one in this process, on the same clock. Reference in the same run, in turn: stock arq with its
default poll and a JSON serializer, from enqueue_job to the function's first line; its side has no HTTP and no provider.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.worker import Worker, func
from report import (
    HOST,
    VIGIL,
    Deployment,
    Figure,
    Line,
    Report,
    answers,
    free_port,
    get,
    new_key,
    percentile,
    post,
    run,
    spread,
)

from worker.clock import Clock
from worker.store.connection.pool import connect

_THIS = Path(__file__).resolve()
_GAP = 0.020, 0.120
_PATIENCE = 15.0
_WARM = 8
_MOST = 2_000
_MS = 1e6
_BODY = {"model": "gpt-5.6-sol", "input": "Why is the sky blue?", "metadata": {"ticket": "A-17"}}
_TARGET_P50, _TARGET_P99 = 8.0, 30.0  # ms


# -- the provider


def _sse() -> bytes:
    item: dict[str, Any] = {"type": "message", "id": "msg_bench", "role": "assistant", "status": "in_progress"}
    part = {"type": "output_text", "text": "Hi", "annotations": []}
    done = {**item, "status": "completed", "content": [part]}
    base = {"id": "resp_bench", "object": "response", "model": "gpt-5.6-sol", "created_at": 1_780_000_000}
    usage = {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6}
    where = {"item_id": "msg_bench", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**base, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.output_text.delta", **where, "delta": "Hi", "logprobs": []},
        {"type": "response.output_text.done", **where, "text": "Hi", "logprobs": []},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": {**base, "status": "completed", "output": [done], "usage": usage}},
    ]
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    return b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in numbered)


@dataclass(frozen=True)
class Arrival:
    """A request as the provider saw it, in ns of the monotonic clock."""

    job_id: str
    connected: int
    received: int


class Provider(asyncio.Protocol):
    """Notes when a request is whole, answers with the smallest stream that is one, hangs up."""

    ANSWER = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_bench\r\n"
        b"connection: close\r\n\r\n" + _sse()
    )

    def __init__(self, arrivals: asyncio.Queue[Arrival]) -> None:
        self._arrivals, self._got = arrivals, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the time."""
        self._transport, self._connected = cast("asyncio.Transport", transport), time.monotonic_ns()

    def data_received(self, data: bytes) -> None:
        """Note the time when head and body are there."""
        now = time.monotonic_ns()
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if not found or len(body) < int(headers.get(b"content-length", 0)):
            return
        job_id = headers.get(b"x-client-request-id", b"").decode().rpartition("-")[0]
        if head.startswith(b"POST"):  # a probe of the models is not a job
            self._arrivals.put_nowait(Arrival(job_id, self._connected, now))
        self._transport.write(self.ANSWER)
        self._transport.close()


# -- the two sides


@dataclass
class Ours:
    """One keep-alive connection to the API, and what its jobs took, in ms."""

    port: int
    key: str
    line: Line
    redis: ArqRedis
    arrivals: asyncio.Queue[Arrival]
    accepted: list[float] = field(default_factory=list)
    connected: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)
    unfinished: int = 0

    async def one(self) -> None:
        """Submit a job, wait until the provider has it, and then until it is over, so that the worker is idle."""
        request = post("/v1/jobs", _BODY, self.key)
        began = time.monotonic_ns()
        status, body = await self.line.ask(request)
        answered = time.monotonic_ns()
        if status != 202:  # noqa: PLR2004
            raise RuntimeError(f"POST /v1/jobs gave {status}: {body.decode(errors='replace')[:300]}")
        job_id = json.loads(body)["id"]
        async with asyncio.timeout(_PATIENCE):
            arrival = await self.arrivals.get()
        if arrival.job_id != job_id.lower():
            raise RuntimeError(f"the provider was asked for {arrival.job_id}, not for {job_id}")
        self.accepted.append((answered - began) / _MS)
        self.connected.append((arrival.connected - began) / _MS)
        self.received.append((arrival.received - began) / _MS)
        _, body = await self.line.ask(get(f"/v1/jobs/{job_id}?wait={_PATIENCE:g}", self.key))
        self.unfinished += json.loads(body)["status"] != "completed"

    async def write(self) -> None:
        """One durable write to the same Valkey: what this disk gives at this moment."""
        began = time.monotonic_ns()
        await self.redis.set("bench:disk", began)
        self.written.append((time.monotonic_ns() - began) / _MS)

    def forget(self) -> None:
        """What came so far was for warming up."""
        for values in (self.accepted, self.connected, self.received, self.written):
            values.clear()


@dataclass
class Plain:
    """arq as it comes, and what its jobs took, in ms."""

    pool: ArqRedis
    replies: asyncio.StreamReader
    started: list[float] = field(default_factory=list)

    async def one(self) -> None:
        """Enqueue a job and wait until its function has begun."""
        began = time.monotonic_ns()
        job = await self.pool.enqueue_job("noted")
        async with asyncio.timeout(_PATIENCE):
            word, at = (await self.replies.readline()).split()
        if job is None or word.decode() != job.job_id:
            raise RuntimeError("arq began another job")
        self.started.append((int(at) - began) / _MS)


def _dumps(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


def serve_reference(socket_path: str) -> None:
    """The process of the reference: stock arq; says `id ns` on stdout as soon as a function begins."""

    async def noted(ctx: dict[str, Any]) -> None:
        now = time.monotonic_ns()
        os.write(1, f"{ctx['job_id']} {now}\n".encode())

    asyncio.set_event_loop(asyncio.new_event_loop())
    settings = RedisSettings(unix_socket_path=socket_path)
    Worker(
        functions=[func(noted, name="noted")],
        redis_settings=settings,
        job_serializer=_dumps,
        job_deserializer=json.loads,
    ).run()


# -- the measurement


async def _ours(deployment: Deployment) -> tuple[Ours, asyncio.Server]:
    loop, arrivals, port = asyncio.get_running_loop(), asyncio.Queue[Arrival](), free_port()
    provider = await loop.create_server(lambda: Provider(arrivals), HOST, 0)
    valkey = await deployment.valkey("ours")
    env = {
        "VIGIL_REDIS_URL": valkey.url,
        "OPENAI_API_KEY": "sk-bench",
        "OPENAI_BASE_URL": f"http://{HOST}:{provider.sockets[0].getsockname()[1]}/v1",
    }
    key = await new_key(valkey.url)
    await deployment.start(VIGIL, "api", "--port", str(port), env=env)
    await deployment.start(VIGIL, "worker", env=env)
    redis = connect(valkey.url, max_connections=1)

    async def beats() -> bool:
        return bool(await redis.hlen("vigil:workers")) and await answers(port, "/readyz")

    await deployment.until("the API and the worker", beats)
    return Ours(port, key, await Line.open(port), redis, arrivals), provider


async def _plain(deployment: Deployment) -> Plain:
    valkey = await deployment.valkey("plain")
    path = valkey.url.removeprefix("unix://")
    process = await deployment.start(sys.executable, _THIS, "--serve-reference", path, piped=True)
    if process.stdout is None:
        raise RuntimeError("no pipe")
    pool = await create_pool(RedisSettings(unix_socket_path=path), job_serializer=_dumps, job_deserializer=json.loads)
    return Plain(pool, process.stdout)


async def _gap(clock: Clock) -> None:
    low, high = _GAP
    await asyncio.sleep(low + (high - low) * clock.random())


async def measure(jobs: int, reference: int) -> Report:
    """Jobs one at a time, ours and theirs in turn."""
    clock, report = Clock(), Report("pickup")
    async with Deployment() as deployment:
        ours, provider = await _ours(deployment)
        plain = await _plain(deployment)
        try:
            for _ in range(_WARM):
                await ours.one()
                await _gap(clock)
            await plain.one()
            ours.forget()
            plain.started.clear()
            for number in range(max(jobs, reference)):
                if number * jobs // max(jobs, reference) == len(ours.received):
                    await _gap(clock)
                    await ours.write()
                    await _gap(clock)
                    await ours.one()
                if number * reference // max(jobs, reference) == len(plain.started):
                    await _gap(clock)
                    await plain.one()
        finally:
            ours.line.close()
            await ours.redis.aclose()
            provider.close()
            await plain.pool.aclose()
    _tell(report, ours, plain)
    return report


def _tell(report: Report, ours: Ours, plain: Plain) -> None:
    rows = [
        ("vigil: POST -> provider has the request", len(ours.received), *spread(ours.received)),
        ("  of it: POST -> 202 read", len(ours.accepted), *spread(ours.accepted)),
        ("  of it: POST -> provider sees a connection", len(ours.connected), *spread(ours.connected)),
        ("plain arq: enqueue -> function begins", len(plain.started), *spread(plain.started)),
        ("one durable write to the same Valkey (SET)", len(ours.written), *spread(ours.written)),
    ]
    report.table(("ms", "jobs", "min", "p50", "p90", "p99", "max"), rows)
    if ours.unfinished:
        report.lines.append(f"{ours.unfinished} jobs did not complete: these figures mean nothing")
    half, most = percentile(ours.received, 0.5), percentile(ours.received, 0.99)
    report.figures = [
        Figure.at_most("pickup p50, HTTP and fsync included", half, _TARGET_P50, "ms"),
        Figure.at_most("pickup p99, HTTP and fsync included", most, _TARGET_P99, "ms"),
        Figure("plain arq / vigil, p50", percentile(plain.started, 0.5) / half, "times"),
        Figure("plain arq / vigil, p99", percentile(plain.started, 0.99) / most, "times"),
        Figure.at_most("jobs that did not complete", ours.unfinished, 0, ""),
    ]


def _count(text: str) -> int:
    if not 1 <= (value := int(text)) <= _MOST:
        raise argparse.ArgumentTypeError(f"1 to {_MOST}")
    return value


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=_count, default=200, help="of ours")
    parser.add_argument("--reference", type=_count, default=100, help="of plain arq; each takes half a second at most")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--serve-reference", metavar="SOCKET", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve_reference:
        serve_reference(args.serve_reference)
        return
    seconds = 40 + args.jobs * 0.3 + args.reference * 0.8
    run(measure(args.jobs, args.reference), seconds=seconds).show(as_json=args.json)


if __name__ == "__main__":
    main()
