"""Our own HTTP connection: on both event loops, over TLS, and where HTTP itself is bent."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from waiting import LIMIT, soon

from tests.upstream.rawserver import (
    CHUNKED,
    LAST,
    SNAPSHOT,
    SSE,
    Connection,
    RawServer,
    as_json,
    chunk,
    completed,
    created,
    delta,
    frame,
    plays,
)
from tests.upstream.upstream_calls import call, drain, kinds
from worker.safety.stream import Closed, Created, Delta, Opened, Rejected, Terminal
from worker.upstream.client import Provider
from worker.upstream.http1_transport import Http1Connection as Wired
from worker.upstream.session import Session

STREAM = b"".join(frame(event) for event in (created(), delta(1), completed(2)))
Check = Callable[[], Awaitable[None]]
LOOPS: dict[str, Callable[[Any], None]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    return LOOPS[request.param]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    begun = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begun)
        .not_valid_after(begun + dt.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


def test_a_stream_on_both_loops(run: Callable[[Any], None]) -> None:
    async def check() -> None:
        async with RawServer(
            plays(CHUNKED, *(chunk(STREAM[i : i + 7]) for i in range(0, len(STREAM), 7)), LAST)
        ) as server:
            provider = Provider("sk", server.url)
            assert kinds(await drain(provider.open(call()))) == [Opened, Created, Delta, Terminal, Closed]
            await provider.aclose()

    run(check())


def test_a_reset_and_a_resume_on_both_loops(run: Callable[[Any], None]) -> None:
    async def resets(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await connection.events(created(), delta(1))
        await soon(received.wait())
        connection.reset()

    async def check() -> None:
        async with RawServer(resets, plays(CHUNKED, chunk(frame(completed(2))), LAST)) as server:
            provider = Provider("sk", server.url)
            session = Session(provider, call("background"))
            events = []
            async for batch in session.batches():
                events += batch
                if any(type(event) is Delta for event in batch):
                    received.set()
            await session.aclose()
            await provider.aclose()
        assert kinds(events) == [Opened, Created, Delta, Opened, Terminal]

    received = asyncio.Event()
    run(check())


def test_hanging_up_wakes_the_reader_on_both_loops(run: Callable[[Any], None]) -> None:
    async def check() -> None:
        gone = asyncio.Event()

        async def script(connection: Connection) -> None:
            await connection.send(CHUNKED)
            await connection.gone()
            gone.set()

        async with RawServer(script) as server:
            provider = Provider("sk", server.url)
            answer = provider.open(call())
            await answer.read()
            pending = asyncio.ensure_future(answer.read())
            await asyncio.sleep(0)
            await provider.aclose()
            assert [type(event) for event in await soon(pending)] == [Closed]
            await soon(gone.wait())

    run(check())


class TlsServer(RawServer):
    def __init__(self, certificate: Path, *scripts: Any) -> None:
        super().__init__(*scripts)
        self._certificate = certificate

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._certificate)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self


def test_tls_on_both_loops(run: Callable[[Any], None], certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def check() -> None:
        async with TlsServer(certificate, plays(CHUNKED, chunk(STREAM), LAST)) as server:
            provider = Provider("sk", server.url)
            assert kinds(await drain(provider.open(call()))) == [Opened, Created, Delta, Terminal, Closed]
            await provider.aclose()

    run(check())


def test_a_certificate_nobody_trusts_is_a_failed_connect(run: Callable[[Any], None], certificate: Path) -> None:
    async def check() -> None:
        async with TlsServer(certificate, plays(CHUNKED)) as server:
            provider = Provider("sk", server.url)
            (end,) = await drain(provider.open(call()))
            await provider.aclose()
        assert end == Closed("connect_failed", "SSLCertVerificationError", opened=False, reason="untrusted")

    run(check())


def test_plain_text_where_tls_is_expected_is_a_failed_connect(run: Callable[[Any], None]) -> None:
    async def check() -> None:
        async with RawServer(plays(CHUNKED)) as server:
            provider = Provider("sk", server.url.replace("http:", "https:"), connect_timeout=1.0)
            (end,) = await drain(provider.open(call()))
            await provider.aclose()
        assert isinstance(end, Closed)
        assert (end.how, end.opened) == ("connect_failed", False)

    run(check())


async def answers(*parts: bytes) -> list[Any]:
    async with RawServer(plays(*parts)) as server:
        provider = Provider("sk", server.url)
        events = await drain(provider.open(call()))
        await provider.aclose()
    return events


async def test_an_interim_answer_is_not_the_answer() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\nx-request-id: no\r\n\r\n"
    events = await answers(interim, CHUNKED, chunk(STREAM), LAST)
    assert events[0] == Opened(200, request_id="req_raw")
    assert kinds(events) == [Opened, Created, Delta, Terminal, Closed]


async def test_switching_protocols_is_no_answer() -> None:
    (end,) = await answers(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello")
    assert isinstance(end, Closed)
    assert end.how == "cut"


async def test_a_second_answer_behind_the_first_is_nobodys() -> None:
    body = b"{}"
    first = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n" + body
    assert kinds(await answers(first + as_json(200, SNAPSHOT | {"status": "completed"})))[-1] is Closed


async def test_a_short_body_is_a_cut() -> None:
    head = SSE + b"content-length: 100000\r\n\r\n"
    events = await answers(head, STREAM)
    assert kinds(events) == [Opened, Created, Delta, Terminal, Closed]
    assert events[-1].how == "cut"


async def test_an_empty_answer() -> None:
    assert kinds(await answers(b"HTTP/1.1 204 No Content\r\n\r\n")) == [Opened, Closed]


async def test_chunk_extensions_and_trailers_are_read_over() -> None:
    body = b"%x;name=value\r\n%b\r\n0\r\nx-trailer: 1\r\n\r\n" % (len(STREAM), STREAM)
    assert kinds(await answers(CHUNKED, body)) == [Opened, Created, Delta, Terminal, Closed]


async def test_an_unknown_encoding_is_refused() -> None:
    head = SSE + b"content-encoding: br\r\ntransfer-encoding: chunked\r\n\r\n"
    events = await answers(head, chunk(b"\x8b\x05\x80hello there\x03"), LAST)
    assert kinds(events) == [Opened, Closed]
    assert events[-1] == Closed("bad_json", "DecodingError")


async def test_a_bomb_is_refused() -> None:
    import gzip

    bomb = gzip.compress(b"data: " + b"x" * (64 << 20))
    head = SSE + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
    assert kinds(await answers(head, chunk(bomb), LAST)) == [Opened, Closed]


async def test_a_header_with_a_line_end_is_never_sent() -> None:
    async with RawServer(plays(CHUNKED, LAST)) as server:
        provider = Provider("sk\r\nx-evil: 1", server.url)
        (end,) = await drain(provider.open(call()))
        await provider.aclose()
        assert server.requests == []
    assert end == Closed("connect_failed", "LocalProtocolError", opened=False)


async def test_a_reader_that_falls_behind_makes_the_server_wait() -> None:
    sent = 0

    async def script(connection: Connection) -> None:
        nonlocal sent
        await connection.send(CHUNKED)
        for number in range(40_000):
            await connection.send(chunk(frame(delta(number, "x" * 1000))))
            sent += 1
        await connection.send(LAST)

    async with RawServer(script) as server:
        provider = Provider("sk", server.url)
        answer = provider.open(call())
        await answer.read()
        body = answer._body
        assert isinstance(body, Wired)
        while not body._paused:
            await asyncio.sleep(0)
        before = -1
        while before != sent:  # until the server is stuck on full buffers
            before = sent
            for _ in range(200):
                await asyncio.sleep(0)
        assert sent < 40_000
        assert body._buffered < 4 << 20
        events = await drain(answer)
        await provider.aclose()
    assert len([event for event in events if type(event) is Delta]) == 40_000


async def test_two_hundred_at_once() -> None:
    async with RawServer(plays(CHUNKED, chunk(STREAM), LAST)) as server:
        provider = Provider("sk", server.url, connect_timeout=LIMIT)
        found = await asyncio.gather(*(drain(provider.open(call())) for _ in range(200)))
        await provider.aclose()
    assert {(*kinds(events), events[-1]) for events in found} == {
        (Opened, Created, Delta, Terminal, Closed, Closed("clean"))
    }


async def test_ipv6() -> None:
    (end,) = await drain_of("http://[::1]:9/v1")
    assert isinstance(end, Closed)
    assert end.how == "connect_failed"


async def drain_of(url: str) -> list[Any]:
    provider = Provider("sk", url)
    try:
        return await drain(provider.open(call()))
    finally:
        await provider.aclose()


async def test_an_error_before_the_request_was_read_is_still_an_answer() -> None:
    class Early(RawServer):
        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(as_json(413, {"error": {"code": "too_large"}}))
                while await reader.read(1 << 16):
                    pass
            except ConnectionError:
                pass
            finally:
                writer.close()

    async with Early() as server:
        provider = Provider("sk", server.url)
        (end,) = await drain(provider.open(call(input="x" * (4 << 20))))
        await provider.aclose()
    assert isinstance(end, Rejected)
    assert end.http_status == 413
