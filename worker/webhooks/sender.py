"""Sends one webhook try: one POST to one checked address, over a new connection that nothing else uses.

Uses a network backend, the one place where a name becomes a socket: the name is looked up once, every address is
checked and the connection goes to a checked address, while Host, SNI and the certificate's name stay those of the URL.
(Rewriting the URL to the address would need Host and SNI set by hand and allows one address only.) No client object is
used, so nothing can follow a redirect, keep a cookie, read a proxy from the environment or reuse a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import httpcore2
import httpx2

from worker.clock import Clock
from worker.webhooks.guard import AddressPolicy, CheckedUrl, Resolver, resolve_allowed
from worker.webhooks.schedule import retry_after

TOTAL_TIMEOUT_S: Final = 15.0
MAX_BODY_BYTES: Final = 64 * 1024
MAX_WIRE_BYTES: Final = 256 * 1024
"""The limit for headers, chunk sizes and body together: headers take time to read too, and may be endless."""
MAX_EXCERPT_BYTES: Final = 2048
UNREACHABLE: Final = "The target can't be reached, or may not be called."
"""The one text for every target that is refused, unknown or silent: it must not reveal private hosts."""
TOO_SLOW: Final = "No complete answer in time."
BROKEN: Final = "The connection broke before the answer was complete."
NO_TLS: Final = "The TLS handshake failed: check the certificate and the names that it is for."
_TCP: Final = httpcore2.AnyIOBackend()
_DEFAULT_HEADERS: Final = {
    "content-type": "application/json",
    "user-agent": "Vigil-Webhooks/1",
    "accept": "*/*",
    "accept-encoding": "identity",
    "connection": "close",
}
_INVISIBLE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Co", "Cs"})


@dataclass(frozen=True, slots=True)
class TryResult:
    """The result of a try; `error` None means that a complete answer came (of at most 64 kB)."""

    status: int | None
    seconds: float
    error: str | None = None
    excerpt: str | None = None
    retry_after: float | None = None


class _PinnedBackend(httpcore2.AsyncNetworkBackend):
    """Opens TCP connections to checked addresses only."""

    def __init__(self, policy: AddressPolicy, resolver: Resolver, total: float, app: str) -> None:
        self._policy, self._resolver, self._total, self._app = policy, resolver, total, app
        self.connected = False

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  the interface's own
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        if not self._policy.allow_private and port not in self._policy.ports:
            raise httpcore2.ConnectError
        try:
            addresses = await resolve_allowed(host, self._resolver, self._policy, self._app)
        except OSError:
            raise httpcore2.ConnectError from None
        # one address may take all the time; several have a share each, and one share is left for the exchange
        share = timeout if len(addresses) == 1 else self._total / (len(addresses) + 1)
        for number, address in enumerate(addresses, 1):
            try:
                stream = await _TCP.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if number == len(addresses):
                    raise
            else:
                self.connected = True
                return _LimitedStream(stream)
        raise httpcore2.ConnectError


class _LimitedStream(httpcore2.AsyncNetworkStream):
    """A connection from which only a limited number of bytes is read."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream, self._left = stream, MAX_WIRE_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  the interface's own
        if self._left <= 0:
            raise httpcore2.ReadError
        piece = await self._stream.read(min(max_bytes, self._left), timeout)
        self._left -= len(piece)
        return piece

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  the interface's own
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  the interface's own
    ) -> httpcore2.AsyncNetworkStream:
        return _LimitedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


class WebhookSender:
    """Sends tries; keeps nothing between them."""

    def __init__(
        self,
        policy: AddressPolicy,
        resolver: Resolver,
        clock: Clock,
        *,
        total: float = TOTAL_TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._policy, self._resolver, self._clock = policy, resolver, clock
        self._total, self._tls = total, tls

    async def post(self, url: CheckedUrl, headers: Mapping[str, str], body: bytes, app: str = "") -> TryResult:
        """Send one POST for an app, which ends within the total time whatever the receiver does."""
        began = self._clock.monotonic()
        received, backend = _PartialAnswer(), _PinnedBackend(self._policy, self._resolver, self._total, app)
        error: str | None = None
        try:
            async with asyncio.timeout(self._total):
                await self._exchange(url, headers, body, received, backend)
        except TimeoutError:
            error = TOO_SLOW if backend.connected else UNREACHABLE
        except httpcore2.ConnectError:
            error = NO_TLS if backend.connected else UNREACHABLE
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError):
            error = BROKEN if backend.connected else UNREACHABLE
        wait = retry_after(received.status, received.retry_after, self._clock.now())
        took = round(self._clock.monotonic() - began, 3)
        return TryResult(received.status, took, error, received.excerpt(), wait)

    async def _exchange(
        self,
        url: CheckedUrl,
        headers: Mapping[str, str],
        body: bytes,
        received: _PartialAnswer,
        backend: _PinnedBackend,
    ) -> None:
        request = _request(url, headers, body)
        connection = httpcore2.AsyncHTTPConnection(
            request.url.origin, self._tls_of(url), http2=False, retries=0, network_backend=backend
        )
        try:
            answer = await connection.handle_async_request(request)
            received.status = answer.status
            received.retry_after = next(
                (v.decode("latin-1") for k, v in answer.headers if k.lower() == b"retry-after"), None
            )
            async with contextlib.aclosing(answer.aiter_stream()) as pieces:
                async for piece in pieces:
                    received.add(piece)
                    if received.read >= MAX_BODY_BYTES:
                        break
        finally:
            await connection.aclose()

    def _tls_of(self, url: CheckedUrl) -> ssl.SSLContext | None:
        if url.scheme == "https" and self._tls is None:
            self._tls = httpx2.create_ssl_context(trust_env=False)
        return self._tls


class _PartialAnswer:
    """The part of an answer that has arrived so far."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.retry_after: str | None = None
        self.read = 0
        self._head = b""

    def add(self, piece: bytes) -> None:
        """Add a piece of the body."""
        self.read += len(piece)
        if len(self._head) < MAX_EXCERPT_BYTES:
            self._head = (self._head + piece)[:MAX_EXCERPT_BYTES]

    def excerpt(self) -> str | None:
        """Return the beginning as text, without characters that could manipulate a terminal or a log."""
        if self.status is None:
            return None
        text = self._head.decode("utf-8", "ignore")
        return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _INVISIBLE_CATEGORIES)


def _request(url: CheckedUrl, headers: Mapping[str, str], body: bytes) -> httpcore2.Request:
    """Return the request; refuse to send if httpx2 parses another target from the URL than the guard did."""
    read = httpx2.Request("POST", url.text, headers={**_DEFAULT_HEADERS, **headers}, content=body)
    target, default = read.url, 443 if url.scheme == "https" else 80
    if (target.scheme, target.raw_host.decode(), target.port or default) != (
        url.scheme,
        url.host.strip("[]"),
        url.port,
    ):
        raise httpcore2.ConnectError
    where = httpcore2.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path)
    return httpcore2.Request("POST", where, headers=read.headers.raw, content=body)
