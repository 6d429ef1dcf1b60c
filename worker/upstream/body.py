"""The body of an answer as the hot path wants it: whatever has arrived, as soon as it arrives.

Knows HTTP, not the provider. Both transports put a `AnswerBody` into `response.extensions`, past httpx2's generators.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Final

import httpx2

BODY: Final = "vigil_body"
"""The key in `response.extensions` under which a 2xx answer's `AnswerBody` is found."""
TRACING_HEADERS: Final = frozenset({"sentry-trace", "baggage", "traceparent", "tracestate"})
"""Tracing headers: ours end at our door, whatever library adds them to a request."""
_MAX_ERROR_BODY_BYTES: Final = 1024 * 1024  # some echo the whole request before the code
_ERROR_BODY_TIMEOUT_S: Final = 10.0


class AnswerBody(httpx2.AsyncByteStream):
    """The bytes of one answer."""

    @abstractmethod
    async def read(self) -> bytes:
        """What has arrived, after waiting for something; b"" is the end. Raises when the connection broke."""

    @abstractmethod
    def read_available(self) -> bytes:
        """What has arrived and was not read, without waiting; survives a broken connection."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def read_error_body(self) -> bytes:
        """The start of an error body, whatever of it comes within the limits; closes the connection."""
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(_ERROR_BODY_TIMEOUT_S):
                while sum(map(len, pieces)) < _MAX_ERROR_BODY_BYTES and (piece := await self.read()):
                    pieces.append(piece)
        except Exception:  # noqa: BLE001 - the status and the headers stand without it
            pieces.append(self.read_available())
        finally:
            await self.aclose()
        return b"".join(pieces)[:_MAX_ERROR_BODY_BYTES]
