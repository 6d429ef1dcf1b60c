"""Clients that send slowly, too much, or invalid HTTP, over bare sockets: refused with a reason, and disconnected."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from api_server import running, submitted, watching
from waiting import LIMIT, stopwatch

from worker.store import keys

HEAD = 0.8
BODY = 0.6


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"header_seconds": HEAD, "body_seconds": BODY})


@asynccontextmanager
async def line(api):
    """(reader, writer) of a fresh connection."""
    reader, writer = await asyncio.open_connection(api.host, api.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def whole(reader, seconds: float = LIMIT) -> bytes:
    """Everything up to the end of the connection."""
    out = b""
    async with asyncio.timeout(seconds):
        try:
            while chunk := await reader.read(65_536):
                out += chunk
        except ConnectionResetError:
            pass
    return out


async def drip(writer, chunk: bytes, every: float) -> None:
    """Send until it is stopped or the other side has closed."""
    while not writer.is_closing():
        writer.write(chunk)
        try:
            await writer.drain()
        except ConnectionError:
            return
        await asyncio.sleep(every)


def problem_of(answer: bytes) -> tuple[int, str]:
    """(status, code) of a response, after a check of the headers that every response has."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-request-id"].startswith("req_")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) == len(body)
    problem = json.loads(body)
    assert problem["status"] == int(status.split(" ")[1])
    return problem["status"], problem["code"]


async def alive(api) -> None:
    assert (await (await api.client()).get("/healthz")).status_code == 200


def post(key: str, *more: bytes) -> bytes:
    lines = [b"POST /v1/jobs HTTP/1.1", b"Host: x", b"Content-Type: application/json", b"Authorization: Bearer "]
    lines[-1] += key.encode()
    return b"\r\n".join([*lines, *more, b"", b""])


async def test_a_silent_client_is_disconnected(api):
    async with stopwatch() as watch, line(api) as (reader, _):
        assert problem_of(await whole(reader)) == (408, "request_timeout")
        assert watch.seconds + watch.lost >= HEAD * 0.9
        assert watch.seconds < HEAD + 1


async def test_a_slow_head_is_refused(api):
    async with stopwatch() as watch, line(api) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        dripping = asyncio.create_task(drip(writer, b"a", 0.05))
        assert problem_of(await whole(reader)) == (408, "request_timeout")
        dripping.cancel()
        assert watch.seconds < HEAD + 1
    await alive(api)


async def test_a_slow_body_is_refused_and_creates_nothing(api, redis):
    async with stopwatch() as watch, line(api) as (reader, writer):
        writer.write(post(await api.key(), b"Content-Length: 60000") + b'{"model":"gpt-5.6-sol","input":"')
        dripping = asyncio.create_task(drip(writer, b"x", 0.05))
        assert problem_of(await whole(reader)) == (408, "request_timeout")
        dripping.cancel()
        assert watch.seconds + watch.lost >= BODY * 0.9
        assert watch.seconds < BODY + 1
    assert await redis.zcard(keys.READY) == 0


async def test_a_slow_chunked_body_is_refused(api, redis):
    async with line(api) as (reader, writer):
        writer.write(post(await api.key(), b"Transfer-Encoding: chunked"))
        dripping = asyncio.create_task(drip(writer, b"1\r\n \r\n", 0.05))
        assert problem_of(await whole(reader)) == (408, "request_timeout")
        dripping.cancel()
    assert await redis.zcard(keys.READY) == 0


async def test_a_refused_request_cannot_go_on_with_its_body(api):
    async with line(api) as (reader, writer):
        writer.write(post("vgl_nobody", b"Content-Length: 60000"))
        dripping = asyncio.create_task(drip(writer, b"x", 0.05))
        answer = await whole(reader)
        dripping.cancel()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert answer.count(b"HTTP/1.1") == 1  # one answer to one request


async def test_each_request_of_a_connection_has_its_own_time(settings, redis, clock):
    head = 2.5  # each request leaves so much of it that a busy machine is in time too
    slower = settings.model_copy(update={"header_seconds": head})
    async with running(slower, redis, clock) as api, line(api) as (reader, writer):
        for _ in range(3):
            writer.write(b"GET /healthz HTTP/1.1\r\n")
            await asyncio.sleep(head * 0.4)
            writer.write(b"Host: x\r\n\r\n")
            assert (await reader.readuntil(b'{"status":"ok"}')).startswith(b"HTTP/1.1 200")
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        assert problem_of(await whole(reader)) == (408, "request_timeout")


async def test_an_idle_connection_is_kept(api):
    async with line(api) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b'{"status":"ok"}')
            await asyncio.sleep(max(HEAD, BODY) * 2)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.readuntil(b'{"status":"ok"}')


async def test_long_polls_and_streams_are_not_cut(acme, worker):
    job_id = await submitted(acme)
    long_poll = asyncio.create_task(acme.get(f"/v1/jobs/{job_id}?wait=20"))
    async with watching(acme, job_id) as stream:
        assert (await stream.next())["seq"] == 1
        await asyncio.sleep(max(HEAD, BODY) * 3)
        await worker.start(job_id)
        assert (await stream.next())["seq"] == 2
        assert (await long_poll).json()["status"] == "running"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"a" * 5_000_000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-A: abc\r\n" * 500_000 + b"\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"a" * 33_000 + b"\r\n\r\n", 431),
        (b"GET /healthz?" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /healthz?" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /healthz?" + b"a" * 5_000_000, 414),
    ],
)
async def test_a_head_that_is_too_large(settings, redis, clock, request_, status):
    unhurried = settings.model_copy(update={"header_seconds": LIMIT})
    async with running(unhurried, redis, clock) as api, line(api) as (reader, writer):
        writer.write(request_)
        answer = await whole(reader)
        if answer or len(request_) < 200_000:  # who still sends when we close may find the answer gone
            assert problem_of(answer)[0] == status
        await alive(api)


async def test_a_head_just_within_the_limits_is_taken(api):
    first = b"GET /healthz?" + b"a" * 8_000 + b" HTTP/1.1\r\n"
    async with line(api) as (reader, writer):
        writer.write(first + b"Host: x\r\nConnection: close\r\nX: " + b"a" * 24_000 + b"\r\n\r\n")
        assert (await whole(reader)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("hosts", "version", "status"),
    [
        ([], b"1.1", 400),
        ([b"a", b"b"], b"1.1", 400),
        ([b"a", b"a"], b"1.1", 400),
        ([b"a", b"b"], b"1.0", 400),
        ([b"a"], b"1.1", 200),
        ([], b"1.0", 200),  # HTTP/1.0 knows no Host: old health checks send none
    ],
)
async def test_a_request_has_one_host(api, hosts, version, status):
    lines = [b"GET /healthz HTTP/" + version, *(b"Host: " + host for host in hosts), b"Connection: close", b"", b""]
    async with line(api) as (reader, writer):
        writer.write(b"\r\n".join(lines))
        answer = await whole(reader)
    assert int(answer.split(b" ")[1]) == status
    if status == 400:
        assert problem_of(answer) == (400, "malformed_request")


async def test_a_fault_behind_a_request_does_not_disturb_its_answer(api, acme):
    job_id = await submitted(acme)
    get = f"GET /v1/jobs/{job_id}?wait=1 HTTP/1.1\r\nHost: x\r\nAuthorization: {acme.headers['authorization']}\r\n\r\n"
    async with line(api) as (reader, writer):
        writer.write(get.encode() + b"GET /healthz HTTP/1.1\r\nX: ")  # half a head, pipelined
        answer = await whole(reader)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1 ") == 2
    assert answer.index(b"HTTP/1.1 408") > answer.index(job_id.encode())


async def test_one_connection_too_many_gets_a_503(settings, redis, clock, monkeypatch):
    import api.web.uvicorn_protocol

    monkeypatch.setattr(api.web.uvicorn_protocol, "_MAX_CONNECTIONS", 2)
    async with running(settings.model_copy(update={"header_seconds": 30}), redis, clock) as served:
        async with line(served), line(served) as (_, _), line(served) as (reader, _):
            assert problem_of(await whole(reader)) == (503, "too_busy")
        await alive(served)
