"""Maps the exceptions of the HTTP libraries to `Closed` events; no exception and no text of one leaves `upstream`.

The libraries are openai (the SDK), httpx2 (its HTTP) and aiohttp (the proxy transport). A test keeps the table
complete. HTTP errors are not here: they are answers, see `headers`.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Final, Literal

import aiohttp
import httpx2
import openai

from worker.safety.stream import Closed, NoConnection

How = Literal["cut", "connect_failed", "bad_json"]

_MAX_CAUSES: Final = 8  # causes of causes; bounded because the chain may have a circle
_UNKNOWN_ISSUER: Final = frozenset({2, 18, 19, 20, 21, 24, 26, 27})
"""OpenSSL's X509_V_ERR_… of a chain without a trusted root: self-signed, no issuer, not a CA."""
_REASON_BY_ERRNO: Final[dict[int | None, NoConnection]] = {
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.EADDRNOTAVAIL: "unreachable",
    errno.ETIMEDOUT: "timeout",
}

_CONNECT: Final[tuple[type[BaseException], ...]] = (
    # nothing of the request was sent, or nothing that could start a response
    aiohttp.ClientConnectorError,
    aiohttp.ClientConnectorDNSError,
    aiohttp.ClientConnectorSSLError,
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ClientSSLError,
    aiohttp.ClientProxyConnectionError,
    aiohttp.ClientHttpProxyError,
    aiohttp.client_exceptions.UnixClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    aiohttp.InvalidUrlClientError,
    aiohttp.NonHttpUrlClientError,
    aiohttp.client_exceptions.UploadAbortedError,
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
    httpx2.InvalidURL,
    httpx2.CookieConflict,
    httpx2.RequestNotRead,
    ssl.SSLCertVerificationError,
    UnicodeEncodeError,  # a key or header that can't be sent
    TypeError,  # a body that is not JSON
)
_CUT: Final[tuple[type[BaseException], ...]] = (
    # the connection ended, at a moment when the call may have run
    aiohttp.ClientError,
    aiohttp.ClientConnectionError,
    aiohttp.ClientConnectionResetError,
    aiohttp.ClientOSError,
    aiohttp.ClientPayloadError,
    aiohttp.ClientResponseError,
    aiohttp.ServerConnectionError,
    aiohttp.ServerDisconnectedError,
    aiohttp.ServerTimeoutError,
    aiohttp.SocketTimeoutError,
    aiohttp.TooManyRedirects,
    aiohttp.RedirectClientError,
    aiohttp.InvalidUrlRedirectClientError,
    aiohttp.NonHttpUrlRedirectClientError,
    aiohttp.WSServerHandshakeError,
    aiohttp.WSMessageTypeError,
    aiohttp.WebSocketError,
    aiohttp.EofStream,
    httpx2.HTTPError,
    httpx2.HTTPStatusError,
    httpx2.RequestError,
    httpx2.TransportError,
    httpx2.TimeoutException,
    httpx2.ReadTimeout,
    httpx2.WriteTimeout,
    httpx2.NetworkError,
    httpx2.ReadError,
    httpx2.WriteError,
    httpx2.CloseError,
    httpx2.ProtocolError,
    httpx2.RemoteProtocolError,
    httpx2.TooManyRedirects,
    httpx2.StreamError,
    httpx2.StreamConsumed,
    httpx2.StreamClosed,
    httpx2.ResponseNotRead,
    openai.OpenAIError,
    openai.APIError,
    openai.APIConnectionError,
    openai.APITimeoutError,
    openai.WebSocketConnectionClosedError,
    openai.WebSocketQueueFullError,
    OSError,
    TimeoutError,
    RuntimeError,
)
_GARBLED: Final[tuple[type[BaseException], ...]] = (
    aiohttp.ContentTypeError,
    httpx2.DecodingError,
    httpx2.SSEError,
    openai.APIResponseValidationError,
    openai.LengthFinishReasonError,
    openai.ContentFilterFinishReasonError,
    openai.InvalidWebhookSignatureError,
)

TABLE: Final[dict[type[BaseException], How]] = {
    **dict.fromkeys(_CONNECT, "connect_failed"),
    **dict.fromkeys(_CUT, "cut"),
    **dict.fromkeys(_GARBLED, "bad_json"),
}


def closed_from(error: BaseException, *, opened: bool) -> Closed:
    """Return how the connection ended; `opened` says whether headers had come.

    `connect_failed` means that the call can't have run. A cut before the headers is `cut` with `opened=False`: the
    request was sent, may have run and may be billed.
    """
    while isinstance(error, openai.APIConnectionError) and error.__cause__ is not None:
        error = error.__cause__  # the SDK's wrapper says less than what it wraps
    how: How = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), "cut")
    if how == "connect_failed" and opened:
        how = "cut"
    # "refused" or "unknown name" tell more than "no connection"
    named = error.__cause__ if isinstance(error, httpx2.ConnectError) and error.__cause__ is not None else error
    return Closed(how, type(named).__name__, opened, _connection_reason(error) if how == "connect_failed" else None)


def _connection_reason(error: BaseException) -> NoConnection | None:
    """Return why there was no connection, by the deepest exception that shows it, or None."""
    found: NoConnection | None = None
    seen: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if seen is None:
            break
        found = _reason(seen) or found
        seen = seen.__cause__ or seen.__context__
    return found


def _reason(error: BaseException) -> NoConnection | None:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError | httpx2.ProxyError):
        return "proxy"
    elif isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, ssl.SSLCertVerificationError):
        return "untrusted" if error.verify_code in _UNKNOWN_ISSUER else "certificate"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, socket.gaierror | aiohttp.ClientConnectorDNSError):
        return "name"
    if isinstance(error, TimeoutError | httpx2.ConnectTimeout | aiohttp.ConnectionTimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return _REASON_BY_ERRNO.get(error.errno) if isinstance(error, OSError) else None
