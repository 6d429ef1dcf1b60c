"""What the client's tests hold in hand: a proxy that breaks connections on demand, and both clients behind one face."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

from waiting import LIMIT

from worker.client import AsyncVigil, Event, Retries, Vigil

sys.path.append(str(Path(__file__).resolve().parents[1] / "api"))  # its hand plays API and worker for us too

QUICK = Retries(first=0.01, longest=0.1, patience=LIMIT)
MODEL = "gpt-5.6-sol"
CUT = "cut"
"""The API does what it was asked, and its answer is thrown away."""


class Proxy:
    """Stands before the API. `plan`: one action per connection, then everything passes.

    bytes: answered in the API's place; CUT; a number: so many bytes of the answer pass, then the connection breaks.
    """

    def __init__(self) -> None:
        self.plan: list[bytes | str | int] = []
        self.heads: list[str] = []  # the first request of each connection
        self.sent = b""  # all that came from clients
        self.to: tuple[str, int] | None = None
        self.open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._met, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.drop()

    async def drop(self) -> None:
        """Every connection has broken."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        self.open += 1

        def over(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self.open -= 1
            writer.close()
            if not task.cancelled() and not isinstance(task.exception(), (OSError, EOFError, type(None))):
                raise AssertionError from task.exception()

        task.add_done_callback(over)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode())
        self.sent += head
        action = self.plan.pop(0) if self.plan else None
        if isinstance(action, bytes):
            length = next((int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), 0)
            await reader.readexactly(length)
            writer.write(action)
            await writer.drain()
            return
        if self.to is None:
            return
        api_reader, api_writer = await asyncio.open_connection(*self.to)
        api_writer.write(head)
        up = asyncio.create_task(self._up(reader, api_writer))
        try:
            if action == CUT:
                await api_reader.read(1)
                return
            down = asyncio.create_task(_pipe(api_reader, writer, action if isinstance(action, int) else None))
            try:
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                down.cancel()
        finally:
            api_writer.close()
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                self.sent += chunk
                writer.write(chunk)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None = None) -> None:
    left = most if most is not None else 1 << 60
    with suppress(OSError):
        while left and (chunk := await reader.read(min(65536, left))):
            left -= len(chunk)
            writer.write(chunk)
            await writer.drain()


class Both:
    """One of the two clients, driven alike: every method is awaited, events come as an async iterator."""

    def __init__(self, kind: str, url: str, key: str, retries: Retries = QUICK) -> None:
        self.client: Any = (Vigil if kind == "blocking" else AsyncVigil)(url, key, retries=retries)
        self.blocking = kind == "blocking"

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        if not self.blocking:
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call

    async def follow(self, job_id: str, **where: int) -> AsyncIterator[Event]:
        if not self.blocking:
            async for event in self.client.events(job_id, **where):
                yield event
            return
        events: Iterator[Event] = self.client.events(job_id, **where)
        while (event := await asyncio.to_thread(next, events, None)) is not None:
            yield event

    async def all_events(self, job_id: str, **where: int) -> list[Event]:
        return [event async for event in self.follow(job_id, **where)]

    async def close(self) -> None:
        await (asyncio.to_thread(self.client.close) if self.blocking else self.client.aclose())


@asynccontextmanager
async def both(kind: str, url: str, key: str, retries: Retries = QUICK) -> AsyncIterator[Both]:
    one = Both(kind, url, key, retries)
    try:
        yield one
    finally:
        await one.close()


def numbers(events: Sequence[Event]) -> list[int]:
    return [event.seq for event in events if event.seq is not None]


def text(events: Sequence[Event], attempt: int) -> str:
    """The attempt's text, which must come without a gap and without a repeat."""
    joined = ""
    for event in events:
        if event.delta is not None and event.attempt == attempt:
            assert event.offset == len(joined)
            joined += event.delta
    return joined


def answer(status: int, body: str = "", *headers: str, kind: str = "application/problem+json") -> bytes:
    """A raw answer for a plan."""
    head = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body.encode())}", *headers]
    return ("\r\n".join([*head, "Connection: close", "", ""]) + body).encode()
