"""Where a request ends: what follows a body is no header, and Upgrade does not cut a body short."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct

import pytest
from api_server import Running
from waiting import LIMIT

BODY = json.dumps({"model": "gpt-5.6-sol", "input": "hi"}).encode()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNK = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
PING = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def post(*fields: bytes) -> bytes:
    return b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + b"".join(fields) + b"\r\n"


@pytest.fixture
async def bearer(api: Running) -> bytes:
    return b"Authorization: Bearer " + (await api.key()).encode() + b"\r\n"


async def statuses(api: Running, *pieces: bytes) -> list[int]:
    """The statuses of all answers on one connection."""
    reader, writer = await asyncio.open_connection(api.host, api.port)
    out = b""
    try:
        async with asyncio.timeout(LIMIT):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.05)  # its own packet
            while chunk := await reader.read(65_536):
                out += chunk
    except ConnectionError:
        pass
    finally:
        writer.close()
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d+)", out)]


async def test_a_key_behind_the_body_is_no_key(api, bearer):
    sent = post(CHUNKED) + CHUNK + bearer + b"\r\n"
    assert await statuses(api, sent, LAST) == [401, 200]
    sent = post(bearer, CHUNKED) + CHUNK + bearer + b"Idempotency-Key: \x7f\r\n\r\n"
    assert (await statuses(api, sent, LAST))[0] in {202, 400}


@pytest.mark.parametrize("line", [b"X: " + b"a" * 1000 + b"\r\n", b"a" * 1000])
async def test_trailers_have_an_end(api, bearer, line):
    assert await statuses(api, post(bearer, CHUNKED) + CHUNK, b"X: 1\r\nY: ", *[line * 20] * 20) == []
    assert await statuses(api, LAST) == [200]


@pytest.mark.parametrize("cut", ["together", "apart"])
async def test_a_body_of_a_request_with_upgrade_is_read(api, bearer, cut):
    for head, body in ((post(bearer, LENGTH, UPGRADE), BODY), (post(bearer, CHUNKED, UPGRADE), CHUNK + b"\r\n")):
        pieces = [head + body + PING + LAST] if cut == "together" else [head[:50], head[50:], body[:9], body[9:], LAST]
        assert await statuses(api, *pieces) == ([202, 200, 200] if cut == "together" else [202, 200])


async def test_bytes_of_a_body_are_never_a_request(api, bearer):
    inner = b"DELETE /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n"
    head = post(bearer, b"Content-Length: %d\r\n" % len(inner), UPGRADE)
    assert await statuses(api, head, inner, LAST) == [400, 200]
    ws = b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    assert await statuses(api, post(bearer, b"Content-Length: %d\r\n" % len(inner), ws), inner, LAST) == [400, 200]


async def test_nothing_is_connected_through(api):
    assert await statuses(api, b"CONNECT /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + PING) == [400]


async def test_a_client_of_http_1_0_gets_no_interim_response(api, bearer):
    """It would take "100 Continue" for the response to its request (RFC 9110, 10.1.1)."""
    body = b'{"model": "gpt-5.6-sol", "input": "x"}'
    fields = b"host: x\r\n%scontent-type: application/json\r\nexpect: 100-continue\r\n" % bearer
    for version in (b"1.0", b"1.1"):
        reader, writer = await asyncio.open_connection(api.host, api.port)
        writer.write(b"POST /v1/jobs HTTP/%s\r\n%scontent-length: %d\r\n\r\n" % (version, fields, len(body)))
        if version == b"1.1":
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        else:
            await asyncio.sleep(0.2)
        writer.write(body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 202 ")
        writer.close()


async def test_requests_whose_client_has_left_say_nothing_on_stderr(api, bearer, caplog):
    """However the connection ends while a request is begun, waits for its body or is answered."""
    head = b"%s /v1/jobs%s HTTP/1.1\r\nHost: x\r\n" + bearer
    requests = [
        head % (b"GET", b"?limit=1") + b"\r\n",
        head % (b"POST", b"") + b"Content-Type: application/json\r\n" + LENGTH + b"\r\n" + BODY[:5],
        (head % (b"GET", b"") + b"\r\n") * 40,
        head % (b"GET", b"") + b"\r\nNOT HTTP\r\n\r\n",
        (head % (b"GET", b"/job_x?wait=5") + b"\r\n") * 3 + b"\0",
    ]
    for number in range(60):
        sock = socket.create_connection((api.host, api.port))
        if number % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(requests[number % len(requests)])
        if number % 3 == 0:
            await asyncio.sleep(0)
        sock.close()
    await asyncio.sleep(0.5)
    assert await statuses(api, LAST) == [200]
    assert [one for one in caplog.records if one.name.startswith("uvicorn")] == []
