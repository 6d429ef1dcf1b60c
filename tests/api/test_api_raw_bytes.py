"""Bytes that are no HTTP request: each gets a 4xx or a closed connection, and the server keeps working."""

from __future__ import annotations

import asyncio
import json

import pytest
from api_server import Running
from arq.connections import ArqRedis
from malformed_requests import FurnishedApi, furnish, unchanged
from test_api_malformed import CANARY, body
from waiting import LIMIT


@pytest.fixture
async def target(api: Running, redis: ArqRedis) -> FurnishedApi:
    return await furnish(api, redis)


@pytest.fixture(autouse=True)
async def nothing_changes(target: FurnishedApi):
    async with unchanged(target):
        yield


def wire(first: bytes, *lines: bytes, sent: bytes = b"") -> bytes:
    return b"\r\n".join([first, *lines, b"", sent])


POST = (b"POST /v1/jobs HTTP/1.1", b"Host: x", b"Authorization: Bearer %KEY%", b"Content-Type: application/json")
GET = (b"GET /healthz HTTP/1.1", b"Host: x")
CHUNKED = (*POST, b"Transfer-Encoding: chunked")
ONE = b"%x\r\n%s\r\n" % (len(body()), body())

WIRE = {
    "length-negative": wire(*POST, b"Content-Length: -1", sent=body()),
    "length-plus": wire(*POST, b"Content-Length: +5", sent=body()),
    "length-hex": wire(*POST, b"Content-Length: 0x5", sent=body()),
    "length-list": wire(*POST, b"Content-Length: 5, 5", sent=body()),
    "length-word": wire(*POST, b"Content-Length: many", sent=body()),
    "length-empty": wire(*POST, b"Content-Length:", sent=body()),
    "length-float": wire(*POST, b"Content-Length: 5.0", sent=body()),
    "length-huge": wire(*POST, b"Content-Length: " + b"9" * 40, sent=body()),
    "length-large": wire(*POST, b"Content-Length: 99999999999", sent=body()),
    "length-twice": wire(*POST, b"Content-Length: 5", b"Content-Length: 6", sent=body()),
    "length-and-chunked": wire(*CHUNKED, b"Content-Length: 5", sent=ONE + b"0\r\n\r\n"),
    "length-short": wire(*POST, b"Content-Length: 10", b"Connection: close", sent=body()),
    "length-zero": wire(*POST, b"Content-Length: 0", b"Connection: close"),
    "coding-unknown": wire(*POST, b"Transfer-Encoding: gzip", sent=body()),
    "coding-gzip-chunked": wire(*POST, b"Transfer-Encoding: gzip, chunked", sent=ONE + b"0\r\n\r\n"),
    "coding-in-two-lines": wire(
        *POST, b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", sent=ONE + b"0\r\n\r\n"
    ),
    "coding-then-chunked-twice": wire(*POST, b"Transfer-Encoding: chunked, identity", sent=ONE + b"0\r\n\r\n"),
    "coding-chunked-x": wire(*POST, b"Transfer-Encoding: xchunked", sent=ONE + b"0\r\n\r\n"),
    "chunk-size-word": wire(*CHUNKED, sent=b"zz\r\nabc\r\n0\r\n\r\n"),
    "chunk-size-negative": wire(*CHUNKED, sent=b"-5\r\nabcde\r\n0\r\n\r\n"),
    "chunk-size-huge": wire(*CHUNKED, sent=b"FFFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n"),
    "chunk-size-empty": wire(*CHUNKED, sent=b"\r\nabc\r\n0\r\n\r\n"),
    "chunk-without-end": wire(*CHUNKED, sent=b"3\r\nabcdef\r\n0\r\n\r\n"),
    "chunk-bare-newline": wire(*CHUNKED, sent=b"3\nabc\n0\n\n"),
    "chunk-nothing": wire(*CHUNKED, b"Connection: close", sent=b"0\r\n\r\n"),
    "name-with-space": wire(*GET, b"X Y: 1"),
    "name-before-space": wire(*GET, b"X : 1"),
    "name-empty": wire(*GET, b": 1"),
    "name-nul": wire(*GET, b"X\x00Y: 1"),
    "name-not-ascii": wire(*GET, b"X\xe9: 1"),
    "name-alone": wire(*GET, b"NoColon"),
    "value-nul": wire(*GET, b"X: a\x00b"),
    "value-bare-return": wire(*GET, b"X: a\rb"),
    "value-folded": wire(*GET, b"X: a", b" b"),
    "host-none": wire(GET[0]),
    "host-two": wire(*GET, b"Host: y"),
    "version-2": wire(b"GET /healthz HTTP/2.0", b"Host: x"),
    "version-9": wire(b"GET /healthz HTTP/9.9", b"Host: x"),
    "version-word": wire(b"GET /healthz HTTP/x", b"Host: x"),
    "version-other": wire(b"GET /healthz SIP/2.0", b"Host: x"),
    "version-small": wire(b"GET /healthz http/1.1", b"Host: x"),
    "method-small": wire(b"get /healthz HTTP/1.1", b"Host: x"),
    "method-unknown": wire(b"BREW /healthz HTTP/1.1", b"Host: x"),
    "method-long": wire(b"G" * 5000 + b" /healthz HTTP/1.1", b"Host: x"),
    "method-not-ascii": wire(b"G\xe9T /healthz HTTP/1.1", b"Host: x"),
    "target-none": wire(b"GET  HTTP/1.1", b"Host: x"),
    "target-relative": wire(b"GET healthz HTTP/1.1", b"Host: x"),
    "target-space": wire(b"GET /health z HTTP/1.1", b"Host: x"),
    "target-nul": wire(b"GET /health\x00z HTTP/1.1", b"Host: x"),
    "target-long": wire(b"GET /" + b"a" * 9000 + b" HTTP/1.1", b"Host: x"),
    "target-authority": wire(b"GET x:443 HTTP/1.1", b"Host: x"),
    "connect": wire(b"CONNECT x:443 HTTP/1.1", b"Host: x", b"Connection: close"),
    "star": wire(b"OPTIONS * HTTP/1.1", b"Host: x", b"Connection: close"),
    "http-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": bytes.fromhex("16030100dc010000d80303") + b"\x00" * 200 + b"\r\n\r\n",
    "garbage": b"\x00\x01\x02\x03\xff\xfe\r\n\r\n",
    "text": b"hello, is anybody there?\r\n\r\n",
    "head-large": wire(*GET, b"X: " + b"a" * 40_000),
    "fields-many": wire(*GET, *(b"X: 1",) * 10_000),
}


async def over(api: Running, sent: bytes) -> bytes:
    """What comes back over a bare socket, at the latest when the server closes it."""
    reader, writer = await asyncio.open_connection(api.host, api.port)
    out = b""
    try:
        async with asyncio.timeout(LIMIT):
            writer.write(sent)
            await writer.drain()
            while chunk := await reader.read(65_536):
                out += chunk
    except ConnectionError:
        pass
    finally:
        writer.close()
    return out


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"header_seconds": 2.0, "body_seconds": 2.0})


@pytest.mark.parametrize("name", WIRE)
async def test_bytes_that_are_no_request_are_refused(target, name):
    key = target.client.headers["authorization"].removeprefix("Bearer ").encode()
    answer = await over(target.api, WIRE[name].replace(b"%KEY%", key))
    status = int(answer.split(b" ", 2)[1])
    assert 400 <= status < 500, answer[:300]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"x-request-id: req_" in head
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["status"] == status
    assert CANARY.encode() not in answer
