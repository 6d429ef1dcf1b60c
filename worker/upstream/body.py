"""Defines the body of an answer for the hot path: it gives whatever has arrived, as soon as it arrives.

Both transports put an `AnswerBody` into `response.extensions`, which avoids the cost of httpx2's generators.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Final

import httpx2

BODY: Final = "vigil_body"
"""The key in `response.extensions` for the `AnswerBody` of a 2xx answer."""
TRACING_HEADERS: Final = frozenset({"sentry-trace", "baggage", "traceparent", "tracestate"})
"""Tracing headers: never sent to the provider, whatever library adds them to a request."""
_MAX_ERROR_BODY_BYTES: Final = 1024 * 1024  # some echo the whole request before the code
_ERROR_BODY_TIMEOUT_S: Final = 10.0


class AnswerBody(httpx2.AsyncByteStream):
    """The bytes of one answer."""

    @abstractmethod
    async def read(self) -> bytes:
        """Wait for data and return it; b"" is the end. Raise if the connection broke."""

    @abstractmethod
    def read_available(self) -> bytes:
        """Return the data that has arrived and was not read, without waiting; works after a broken connection too."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def read_error_body(self) -> bytes:
        """Return the start of an error body, as far as it comes within the limits, and close the connection."""
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(_ERROR_BODY_TIMEOUT_S):
                while sum(map(len, pieces)) < _MAX_ERROR_BODY_BYTES and (piece := await self.read()):
                    pieces.append(piece)
        except Exception:  # noqa: BLE001 - the status and the headers are enough without it
            pieces.append(self.read_available())
        finally:
            await self.aclose()
        return b"".join(pieces)[:_MAX_ERROR_BODY_BYTES]
