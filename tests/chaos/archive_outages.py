"""An archive for the soak: a real S3 server behind a door that can be shut, so that what it holds outlives outages."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

from worker.settings import Settings

BUCKET = "soak"


class ArchiveDoor:
    """Passes connections on to the S3 server; can refuse and break them, and let the server stand still."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._listening: asyncio.Server | None = None
        self._open = set[asyncio.StreamWriter]()
        self.port = 0

    async def open(self) -> None:
        """Listen, at the same port each time."""
        self._listening = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Refuse connections and break the open ones, as a server that was killed."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for writer in list(self._open):
            writer.transport.abort()

    async def silence(self, seconds: float) -> None:
        """Let the server take requests and answer none for a while."""
        os.kill(self._server.process.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(self._server.process.pid, signal.SIGCONT)

    @property
    def environment(self) -> dict[str, str]:
        """The settings with which workers reach the archive through the door."""
        moved = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}
        return {**self._server.environment, **moved, "VIGIL_ARCHIVE": f"s3://{BUCKET}/trail"}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._server.port)
            self._open.add(inner_writer)
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
            self._open.discard(inner_writer)
        except OSError:
            pass
        finally:
            self._open.discard(writer)
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


def has_archive() -> bool:
    """Return whether this release has an archive, and the tests an S3 server."""
    return "archive" in Settings.model_fields and importlib.util.find_spec("s3_server") is not None


@contextlib.asynccontextmanager
async def archive() -> AsyncIterator[ArchiveDoor | None]:
    """The door of an archive with an empty bucket; None where there is no archive."""
    if not has_archive():
        yield None
        return
    with importlib.import_module("s3_server").s3_server() as server:
        await asyncio.to_thread(server.make_bucket, BUCKET)
        door = ArchiveDoor(server)
        await door.open()
        try:
            yield door
        finally:
            await door.shut()
