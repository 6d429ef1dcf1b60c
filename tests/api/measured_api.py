"""An API in a thread of its own, whose loop measures the CPU that each of its turns takes.

A turn is what the loop does between two looks at its sockets: nobody else is served meanwhile. CPU and not time, so
that a busy machine changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import NamedTuple, cast

import httpx2
from api_server import running
from worst_requests import WorstRequest

from api.app import create_app
from api.schema.documented_route import DocumentedRoute
from worker.clock import Clock
from worker.settings import Settings
from worker.store.connection.pool import connect
from worker.store.console_access import ConsoleAccess
from worker.store.envelope import MasterKeyring

_BEAT_S = 0.002


class MeasuredLoop(asyncio.SelectorEventLoop):
    """A loop that keeps the CPU of its longest turn, and how late its longest delayed timer was."""

    longest = lag = 0.0

    def _run_once(self) -> None:
        began = time.thread_time()
        super()._run_once()  # type: ignore[misc]
        self.longest = max(self.longest, time.thread_time() - began)

    def watch_lag(self) -> None:
        """Measure from now on how late timers are: another thread may hold the interpreter."""
        due = self.time() + _BEAT_S

        def beat() -> None:
            self.lag = max(self.lag, self.time() - due)
            self.watch_lag()

        self.call_at(due, beat)


class Cost(NamedTuple):
    """What a request took, in seconds, and the status of its response."""

    turn: float
    """CPU of the loop's longest turn."""
    total: float
    """CPU of all threads but the client's."""
    lag: float
    """How late the most delayed timer was, if that is watched."""
    status: int

    def least(self, other: Cost) -> Cost:
        """Return the lower of each figure, with the status of `other`, the same request sent again."""
        return Cost(*map(min, self[:3], other[:3]), other.status)


@dataclass
class MeasuredApi:
    """The running API, and how to send it a request and see what it took."""

    url: str
    key: str
    session: str
    """The token of a session of the console, for the same key."""
    loop: MeasuredLoop
    routes: list[DocumentedRoute]

    def ids(self) -> dict[str, str]:
        """Return path parameters that name things that exist."""
        with httpx2.Client(base_url=f"http://{self.url}", headers={"Authorization": f"Bearer {self.key}"}) as client:
            job = client.post("/v1/jobs", json={"model": "gpt-5.6-sol", "input": "Explain tail latency."}).json()
            endpoint = client.post("/v1/webhook-endpoints", json={"url": "https://app.example/hooks"}).json()
            items = [{"role": "user", "content": "Explain tail latency."}]
            conversation = client.post("/v1/conversations", json={"items": items}).json()
            appealed = client.post("/v1/appeals", json={"jobs": [job["id"]], "reason": "asks"}).json()
            item = client.get(f"/v1/conversations/{conversation['id']}/items").json()["data"][0]
        others = {"message_id": "msg_1", "end_user": "user-17", "model_id": "gpt-5.6-sol", "group_id": "group_x"}
        others |= {
            "person": "0" * 64,
            "app": "acme",
            "kind": "prompt",
            "version": "0",
            "name": "console.css",
            "path": "nothing",
        }
        others |= {"conversation_id": conversation["id"], "item_id": item["id"]}
        others |= {"appeal_id": appealed["id"], "appeal": appealed["id"]}
        return {"job_id": job["id"], "endpoint_id": endpoint["id"], **others}

    def send(self, request: WorstRequest, until: bytes = b"text/event-stream") -> Cost:
        """Send a request on a connection of its own, and read the response to its end, or until it contains a text."""
        head = {"Host": self.url, "Authorization": f"Bearer {self.key}", "Connection": "close"}
        head |= {"Cookie": f"vigil_console={self.session}", "Origin": f"http://{self.url}"}
        if request.body:
            head |= {"Content-Type": "application/json", "Content-Length": str(len(request.body))}
        fields = "".join(f"{name}: {value}\r\n" for name, value in {**head, **request.headers}.items())
        raw = f"{request.method} {request.target} HTTP/1.1\r\n{fields}\r\n".encode("latin-1") + request.body
        return self.send_raw(raw, until)

    def send_raw(self, raw: bytes, until: bytes) -> Cost:
        """Send these bytes, and return what they took and the status of the response."""
        self.loop.longest = self.loop.lag = 0.0
        began = time.process_time() - time.thread_time()
        host, _, port = self.url.partition(":")
        with closing(socket.create_connection((host, int(port)), timeout=60)) as connection:
            status, tail = b"", b""
            with contextlib.suppress(OSError):  # refused before its end
                connection.sendall(raw)
            with contextlib.suppress(OSError):
                while piece := connection.recv(65536):
                    status, tail = status or piece[9:12], tail[-len(until) :] + piece
                    if until in tail:
                        break
        took = time.process_time() - time.thread_time() - began
        return Cost(self.loop.longest, took, self.loop.lag, int(status or b"0"))


@contextmanager
def measured_api(settings: Settings, keyring: MasterKeyring | None = None) -> Iterator[MeasuredApi]:
    """Give an API over this Redis, in a thread of its own."""
    ready, ended = threading.Event(), asyncio.Event()
    found: list[MeasuredApi] = []

    async def main() -> None:
        redis = connect(settings.redis_url, keyring=keyring)
        async with running(settings, redis, Clock()) as api:
            routes = create_app(settings, redis, Clock()).routes
            loop = cast("MeasuredLoop", asyncio.get_running_loop())
            key = await api.key()
            record = await api.apps.find(key)
            session = await ConsoleAccess(redis, Clock()).begin_session(record.id if record else "")
            address = f"{api.host}:{api.port}"
            found.append(MeasuredApi(address, key, session, loop, cast("list[DocumentedRoute]", routes)))
            ready.set()
            await ended.wait()
        await redis.aclose()

    def serve() -> None:
        try:
            with asyncio.Runner(loop_factory=MeasuredLoop) as runner:
                runner.run(main())
        finally:
            ready.set()

    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()  # so that what the caller has made costs nothing here; and as seldom as in `vigil api`
    gc.set_threshold(50_000, 20, 50)
    thread = threading.Thread(target=serve, name="measured-api")
    thread.start()
    ready.wait()
    try:
        yield found[0]
    finally:
        found[0].loop.call_soon_threadsafe(ended.set)
        thread.join()
        gc.set_threshold(*thresholds)
        gc.unfreeze()
