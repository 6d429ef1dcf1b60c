"""Sends HTTP requests through a proxy, over aiohttp, with the same `AnswerBody` as `http1_transport`.

It costs more CPU per delta (see there). Why not the SDK's own transport (`DefaultAioHttpClient`): a lost connection
would be reported as a connect timeout, an error body had no limit, and a tracing library could add headers.
"""

from __future__ import annotations

import urllib.parse
import urllib.request
import zlib
from http import HTTPStatus
from typing import cast

import aiohttp
import httpx2

from worker.upstream.body import BODY, TRACING_HEADERS, AnswerBody
from worker.upstream.inflate import ContentDecoder
from worker.upstream.send_gate import wait_until_open


class AiohttpBody(AnswerBody):
    """The body of an aiohttp answer."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        encoding = response.headers.get("content-encoding", "").strip().lower().encode()
        self._layers = ContentDecoder(encoding)

    async def read(self) -> bytes:
        """Wait for data and return it; b"" is the end. Raise if the connection broke."""
        while piece := await self._response.content.readany():
            if plain := self._plain(piece):
                return plain
        return b""

    def read_available(self) -> bytes:
        """Return the data that has arrived and was not read."""
        content = self._response.content
        if content.exception() is not None:
            # aiohttp hides received bytes behind the error that came after them: the last frames before a reset
            content.set_exception(cast("BaseException", None))
        try:
            return self._plain(content.read_nowait())
        except (RuntimeError, aiohttp.ClientError, OSError, httpx2.DecodingError):
            return b""

    def _plain(self, piece: bytes) -> bytes:
        try:
            return self._layers.feed(piece)
        except zlib.error:
            raise httpx2.DecodingError("not what the header says, or more than it may hold") from None

    async def aclose(self) -> None:
        """Close the connection."""
        self._response.close()


class ProxyTransport(httpx2.AsyncBaseTransport):
    """Sends the SDK's requests through `proxy`, each over a new connection, so none is stale."""

    def __init__(self, *, connect_timeout: float, proxy: str | None) -> None:
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=connect_timeout, sock_connect=connect_timeout, sock_read=None
        )
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send, and return as soon as headers have come; the body of an error is read within limits."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=self._timeout,
            )
            self._session.trace_configs.clear()  # a tracing library that patched aiohttp put itself here
        await wait_until_open()
        left_out = TRACING_HEADERS | {"connection", "transfer-encoding"}  # aiohttp sets the latter two
        response = await self._session.request(
            request.method,
            str(request.url),
            headers=[(k, v) for k, v in request.headers.multi_items() if k.lower() not in left_out],
            data=request.content or None,
            allow_redirects=False,
            proxy=self._proxy,
        )
        headers = [(k, v) for k, v in response.raw_headers if k.lower() != b"content-encoding"]
        body = AiohttpBody(response)
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            return httpx2.Response(
                response.status, headers=headers, content=await body.read_error_body(), request=request
            )
        return httpx2.Response(response.status, headers=headers, stream=body, request=request, extensions={BODY: body})

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()


def environment_proxy(url: str) -> str | None:
    """Return the proxy that the environment (HTTPS_PROXY, NO_PROXY ...) names for `url`, or None."""
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    found = urllib.request.getproxies()
    proxy = found.get(parts.scheme) or found.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
