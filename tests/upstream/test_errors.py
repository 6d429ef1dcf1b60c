from __future__ import annotations

import socket
import ssl
from itertools import pairwise
from types import ModuleType

import aiohttp
import aiohttp.client_exceptions
import httpx2
import openai
import pytest

from worker.safety.stream import Closed
from worker.upstream.errors import TABLE, closed_from


def exceptions_of(module: ModuleType) -> list[type[BaseException]]:
    """Every public exception class that a library may throw at us."""
    return [
        value
        for name in dir(module)
        if not name.startswith("_")
        and issubclass(
            type(value := getattr(module, name)), type
        )  # isclass would import what openai's proxies stand for
        and issubclass(value, BaseException)
        and not issubclass(value, Warning)
        and value.__module__.startswith(module.__name__.partition(".")[0])
    ]


@pytest.mark.parametrize("module", [openai, httpx2, aiohttp, aiohttp.client_exceptions], ids=lambda m: m.__name__)
def test_the_table_knows_every_foreign_exception(module: ModuleType) -> None:
    classes = exceptions_of(module)
    assert len(classes) > 10
    # an APIStatusError is an answer, not an end: `headers.rejected_from` takes it
    missing = [c.__name__ for c in classes if c not in TABLE and not issubclass(c, openai.APIStatusError)]
    assert missing == []


REQUEST = httpx2.Request("POST", "http://x/")


def chained(*errors: BaseException) -> BaseException:
    for outer, inner in pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


@pytest.mark.parametrize(
    ("error", "how", "detail"),
    [
        (ConnectionRefusedError(), "cut", "ConnectionRefusedError"),
        (aiohttp.ServerDisconnectedError(), "cut", "ServerDisconnectedError"),
        (aiohttp.ConnectionTimeoutError(), "connect_failed", "ConnectionTimeoutError"),
        (httpx2.ConnectError("x"), "connect_failed", "ConnectError"),
        (httpx2.RemoteProtocolError("x"), "cut", "RemoteProtocolError"),
        (openai.APIConnectionError(request=REQUEST), "cut", "APIConnectionError"),
        (
            chained(openai.APIConnectionError(request=REQUEST), aiohttp.ClientPayloadError()),
            "cut",
            "ClientPayloadError",
        ),
        (
            chained(openai.APIConnectionError(request=REQUEST), httpx2.ConnectError("x"), ConnectionRefusedError()),
            "connect_failed",
            "ConnectionRefusedError",
        ),
        (chained(openai.APITimeoutError(REQUEST), httpx2.ConnectTimeout("x")), "connect_failed", "ConnectTimeout"),
        (httpx2.DecodingError("x"), "bad_json", "DecodingError"),
        (ZeroDivisionError(), "cut", "ZeroDivisionError"),
    ],
)
def test_the_root_of_the_chain_decides(error: BaseException, how: str, detail: str) -> None:
    found = closed_from(error, opened=False)
    assert (found.how, found.detail, found.opened) == (how, detail, False)


def untrusted(number: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "x")
    error.verify_code = number
    return error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (untrusted(18), "untrusted"),
        (untrusted(20), "untrusted"),
        (untrusted(10), "certificate"),
        (untrusted(62), "certificate"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), "tls"),
        (socket.gaierror(-2, "Name or service not known"), "name"),
        (ConnectionRefusedError(111, "x"), "refused"),
        (OSError(113, "No route to host"), "unreachable"),
        (TimeoutError(), "timeout"),
        (OSError("Multiple exceptions"), None),
    ],
)
def test_why_there_is_no_connection_is_told_through_every_wrapper(error: OSError, why: str | None) -> None:
    wrapped = chained(openai.APIConnectionError(request=REQUEST), httpx2.ConnectError("x"), error)
    assert closed_from(wrapped, opened=False).reason == why
    assert closed_from(wrapped, opened=True).reason is None


def test_a_proxy_that_is_away_is_told_as_the_proxy() -> None:
    key = aiohttp.client_reqrep.ConnectionKey("p", 1, False, False, None, None, None)
    away = aiohttp.ClientProxyConnectionError(key, ConnectionRefusedError(111, "x"))
    assert closed_from(chained(openai.APIConnectionError(request=REQUEST), away), opened=False).reason == "proxy"


def test_a_circle_of_causes_ends() -> None:
    one, other = httpx2.ConnectError("x"), OSError("y")
    one.__cause__, other.__cause__ = other, one
    assert closed_from(one, opened=False).how == "connect_failed"


def test_after_the_headers_nothing_is_a_failed_connect() -> None:
    assert closed_from(httpx2.ConnectError("x"), opened=True) == Closed("cut", "ConnectError", opened=True)


def test_no_text_of_an_exception_is_kept() -> None:
    assert "secret" not in repr(closed_from(httpx2.ReadError("secret"), opened=True))
