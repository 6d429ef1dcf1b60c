"""One try over real sockets: pinned to a judged address, right name in SNI and Host, bounded in time and size."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from waiting import LIMIT, stopwatch

from worker.clock import Clock
from worker.webhooks.guard import AddressPolicy, CheckedUrl, check_url
from worker.webhooks.resolver import SystemResolver
from worker.webhooks.sender import BROKEN, MAX_BODY_BYTES, NO_TLS, TOO_SLOW, UNREACHABLE, WebhookSender

LOOPBACK = AddressPolicy(allow_private=True)
ServeConnection = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


class Names:
    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.queries = list(answers), []

    async def __call__(self, host: str) -> list[str]:
        self.queries.append(host)
        return self.answers[min(len(self.queries), len(self.answers)) - 1]


class Server:
    """A receiver that speaks bytes; it keeps the heads it saw, the names in SNI, and counts connections."""

    def __init__(self, serve_connection: ServeConnection) -> None:
        self.serve_connection, self.heads, self.names, self.connections = (
            serve_connection,
            list[str](),
            list[str | None](),
            0,
        )
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode())
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await self.serve_connection(reader, writer, await reader.readexactly(length))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(serve_connection: ServeConnection, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(serve_connection)
    if tls is not None:
        tls.sni_callback = lambda _, name, __: server.names.append(name)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await listening.wait_closed()


def says(answer: bytes) -> ServeConnection:
    async def serve_connection(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.write(answer)
        await writer.drain()

    return serve_connection


OK = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def sender(
    names: Names | None = None, policy: AddressPolicy = LOOPBACK, total: float = 5, tls: ssl.SSLContext | None = None
):
    return WebhookSender(policy, names or Names(["127.0.0.1"]), Clock(), total=total, tls=tls)


async def post(way: WebhookSender, url: str, policy: AddressPolicy = LOOPBACK):
    return await way.post(check_url(url, policy), {"webhook-id": "msg_1"}, b'{"a":1}')


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[ssl.SSLContext, ssl.SSLContext]]:
    """A certificate authority of our own: name -> (a server's side, the side of whoever trusts it)."""
    folder: Path = tmp_path_factory.mktemp("ca")
    now = Clock().now()

    def certificate(name: str, key, issuer: str, signer, *, ca: bool):
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        return made.sign(signer, hashes.SHA256())

    root = ec.generate_private_key(ec.SECP256R1())
    top = certificate("ca.example", root, "ca.example", root, ca=True)
    (folder / "ca.pem").write_bytes(top.public_bytes(serialization.Encoding.PEM))

    def sides(name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = certificate(name, key, "ca.example", root, ca=False)
        plain = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        (folder / f"{name}.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM) + pem)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(folder / f"{name}.pem")
        return server, ssl.create_default_context(cafile=str(folder / "ca.pem"))

    return sides


async def test_tls_goes_to_the_judged_address_under_the_urls_name(authority):
    server_side, trust = authority("hooks.example")
    names = Names(["127.0.0.1"])
    async with serving(OK, server_side) as server:
        answer = await post(sender(names, tls=trust), f"https://hooks.example:{server.port}/a?b=c")
    assert (answer.status, answer.error, answer.excerpt) == (200, None, "ok")
    assert server.names == ["hooks.example"]
    assert server.heads[0].startswith("POST /a?b=c HTTP/1.1\r\n")
    assert f"\r\nHost: hooks.example:{server.port}\r\n" in server.heads[0]
    assert names.queries == ["hooks.example"]


async def test_a_certificate_for_another_name_is_refused(authority):
    server_side, trust = authority("other.example")
    async with serving(OK, server_side) as server:
        answer = await post(sender(tls=trust), f"https://hooks.example:{server.port}/")
    assert (answer.status, answer.error) == (None, NO_TLS)
    assert server.heads == [], "nothing was said to it"


async def test_an_authority_that_nobody_trusts_is_refused(authority):
    server_side, _ = authority("hooks.example")
    async with serving(OK, server_side) as server:
        answer = await post(sender(), f"https://hooks.example:{server.port}/")
    assert (answer.status, answer.error) == (None, NO_TLS)


async def test_a_name_that_changes_its_answer_is_asked_once():
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    async with serving(OK) as server:
        answer = await post(sender(names), f"http://rebind.example:{server.port}/")
    assert (answer.status, names.queries) == (200, ["rebind.example"])


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], []])
async def test_a_forbidden_answer_is_refused_before_any_packet(answer):
    async with serving(OK) as server:
        strict = AddressPolicy(ports=frozenset({server.port}))
        names = Names(answer)
        got = await sender(names, strict).post(
            CheckedUrl(f"https://x.example:{server.port}/", "https", "x.example", server.port), {}, b"{}"
        )
    assert (got.status, got.error, got.excerpt) == (None, UNREACHABLE, None)
    assert (server.connections, names.queries) == (0, ["x.example"])


async def test_refused_unknown_and_silent_targets_read_the_same():
    closed = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = closed.sockets[0].getsockname()[1]
    closed.close()
    await closed.wait_closed()

    async def nowhere(_: str) -> list[str]:
        raise OSError

    async def never(_: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    texts = set()
    for names, policy, total in ((Names(["127.0.0.1"]), LOOPBACK, 5), (nowhere, LOOPBACK, 5), (never, LOOPBACK, 0.05)):
        texts.add((await post(sender(names, policy, total), f"http://x.example:{port}/")).error)
    texts.add((await post(sender(Names(["10.0.0.1"]), AddressPolicy()), "https://x.example/", AddressPolicy())).error)
    assert texts == {UNREACHABLE}


async def test_a_port_off_the_list_is_refused_when_dialled_too():
    names = Names(["8.8.8.8"])
    got = await sender(names, AddressPolicy()).post(
        CheckedUrl("https://x.example:22/", "https", "x.example", 22), {}, b"{}"
    )
    assert (got.error, names.queries) == (UNREACHABLE, [])


async def test_another_reading_of_the_stored_text_is_never_dialled():
    got = await sender().post(CheckedUrl("http://a.example:9/", "http", "b.example", 9), {}, b"{}")
    assert got.error == UNREACHABLE


async def test_the_second_address_is_tried_when_the_first_is_dead():
    async with serving(OK) as server:
        got = await post(sender(Names(["127.0.0.9", "127.0.0.1"])), f"http://x.example:{server.port}/")
    assert got.status == 200


async def test_redirects_are_answers_and_not_followed():
    async with serving(OK) as inside:
        redirect = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:{inside.port}/\r\n\r\n".encode()
        async with serving(says(redirect)) as server:
            got = await post(sender(), f"http://x.example:{server.port}/")
    assert (got.status, got.error, inside.connections, server.connections) == (307, None, 0, 1)


async def test_each_try_has_a_connection_of_its_own_and_no_cookies():
    cookie = says(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n")
    async with serving(cookie) as server:
        way = sender()
        for _ in range(3):
            assert (await post(way, f"http://x.example:{server.port}/")).status == 200
    assert server.connections == 3
    assert not any("cookie" in head.lower() for head in server.heads)
    assert all("\r\naccept-encoding: identity\r\n" in head for head in server.heads)


async def test_an_egress_proxy_in_the_environment_is_not_used(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving(OK) as server:
        assert (await post(sender(), f"http://x.example:{server.port}/")).status == 200


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
async def test_a_slow_drip_is_cut_at_the_total_time(head):
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.write(head)
        while True:
            writer.write(b"x" if head.endswith(b"\r\n\r\n") else b"")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(drip) as server, stopwatch() as watch:
        got = await post(sender(total=0.2), f"http://x.example:{server.port}/")
    assert got.error == TOO_SLOW
    assert 0.19 <= got.seconds < 1 + watch.lost


@pytest.mark.parametrize("chunked", [True, False])
async def test_only_so_much_of_an_answer_is_read(chunked):
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"))
        while True:
            block = b"z" * 8192
            writer.write(b"2000\r\n" + block + b"\r\n" if chunked else block)
            await writer.drain()
            sent += len(block)

    async with serving(flood) as server:
        got = await post(sender(), f"http://x.example:{server.port}/")
    assert (got.status, got.error) == (200, None)
    assert got.excerpt == "z" * 2048
    assert sent < MAX_BODY_BYTES + 16 * 2**20, "the rest stayed in the buffers of the sockets"


@pytest.mark.parametrize("tls", [True, False])
async def test_only_so_much_is_read_before_an_answer_too(authority, tls):
    """Interim answers without an end would keep the worker busy for as long as a try may last."""
    server_side, client_side = authority("app.example")

    async def interim(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        while True:
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
            await writer.drain()

    async with serving(interim, server_side if tls else None) as server:
        way = sender(tls=client_side, total=10)
        got = await post(way, f"http{'s' if tls else ''}://app.example:{server.port}/")
    assert (got.status, got.error) == (None, BROKEN)
    assert got.seconds < 5


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (b"", None, BROKEN),
        (b"nonsense\r\n\r\n", None, BROKEN),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", 200, BROKEN),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", None, BROKEN),
    ],
)
async def test_half_and_foul_answers(answer, status, error):
    async with serving(says(answer)) as server:
        got = await post(sender(), f"http://x.example:{server.port}/")
    assert (got.status, got.error) == (status, error)


async def test_an_excerpt_is_harmless_text():
    body = "ok\x1b[31m\x00\u202e\r\nnext \ud7ffé".encode() + b"\xff\xfe"
    raw = b"HTTP/1.1 500 X\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with serving(says(raw)) as server:
        got = await post(sender(), f"http://x.example:{server.port}/")
    assert got.excerpt == "ok[31m\nnext \ud7ffé"


async def test_a_name_that_never_resolves_takes_one_thread_and_nobody_elses_time():
    gate, queries = threading.Event(), []

    def lookup(host: str) -> list[str]:
        queries.append(host)
        if host == "tarpit.example":
            gate.wait(LIMIT)
        return ["127.0.0.1"]

    resolver = SystemResolver(lookup, seconds=3)
    stuck = [asyncio.create_task(resolver("tarpit.example")) for _ in range(100)]
    await asyncio.sleep(0)
    assert await resolver("good.example") == ["127.0.0.1"]
    for task in stuck:
        with pytest.raises(OSError, match="no answer"):
            await task
    assert sorted(queries) == ["good.example", "tarpit.example"]
    gate.set()
    resolver.close()


async def test_the_systems_resolver_knows_this_machine_and_not_what_does_not_exist():
    resolver = SystemResolver()
    assert "127.0.0.1" in await resolver("localhost")
    for name in ("no.such.name.invalid", "x" * 300, "a..b"):
        with pytest.raises(OSError):  # noqa: PT011  whichever way there is none
            await resolver(name)
    resolver.close()
