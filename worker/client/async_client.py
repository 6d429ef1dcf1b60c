"""`AsyncVigil`: the client that awaits. What it says and when it says it again stands in `talk.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import httpx2
from pydantic import SecretStr

from worker.client import requests
from worker.client.http import lost, lower, manners, reply, request, whereabouts
from worker.client.models import CancelledJob, Event, Job
from worker.client.protocol import (
    CloseStream,
    Conversation,
    Deed,
    OpenStream,
    ReadStream,
    Reply,
    SendRequest,
    Sleep,
    Steps,
    Telling,
    Told,
)
from worker.client.requests import ApiRequest, Filters, Method, NewJob
from worker.client.responses import AuditRecord, BatchRow, Message, Model, Page, Status
from worker.client.retry import Retries
from worker.clock import Clock

T = TypeVar("T")
_OK = httpx2.codes.OK


class AsyncVigil:
    """Vigil over HTTP; without arguments as VIGIL_URL and VIGIL_API_KEY say.

    For one event loop. Errors are those of `worker.client.errors`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | SecretStr | None = None,
        *,
        retries: Retries | None = None,
        agent: str = "vigil-python",
        clock: Clock | None = None,
    ) -> None:
        self.url, secret = whereabouts(url, key)
        self._clock = clock or Clock()
        self._talk = Conversation(self.url, retries or Retries(), self._clock)
        self._http = httpx2.AsyncClient(**manners(self.url, secret, agent))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Every connection is closed."""
        await self._http.aclose()

    async def submit(self, *, wait: float = 0, **job: Unpack[NewJob]) -> Job:
        """The accepted job, or with `wait` (at most 60 seconds) the job as it is then.

        One call makes one job, however often it has to be sent: without an `idempotency_key` it gets one.
        """
        key = job.get("idempotency_key") or self._new_key()
        return await self._run(self._talk.call(requests.submit(job, key, wait)))

    async def batch(self, jobs: Sequence[NewJob], *, idempotency_key: str | None = None) -> Sequence[BatchRow]:
        """One outcome per job, in order; at most 1,000 jobs."""
        return await self._run(self._talk.call(requests.batch(jobs, idempotency_key or self._new_key())))

    async def get(self, job_id: str) -> Job:
        """The job as it is now."""
        return await self._run(self._talk.call(requests.get(job_id)))

    async def wait(self, job_id: str, timeout: float | None = None) -> Job:  # noqa: ASYNC109  the same name as in the client that blocks
        """The settled job; StillRunning when it has not settled within `timeout` seconds.

        A restart of the API in between is waited out.
        """
        return await self._run(self._talk.wait(job_id, timeout))

    def events(self, job_id: str, *, after: int = 0, offset: int = 0) -> AsyncGenerator[Event]:
        """All events behind number `after`, then live, to the last one; each once and in order over reconnections.

        Text comes as `job.output.delta` events, from character `offset` on. Whoever leaves early should `aclose()` it.
        """
        return self._stream(self._talk.events(job_id, after, offset))

    async def cancel(self, job_id: str) -> CancelledJob:
        """The job after the request to stop it; asking again changes nothing."""
        return await self._run(self._talk.call(requests.cancel(job_id)))

    async def retry(self, job_id: str, model: str | None = None) -> Job:
        """The job after its open offer of a faster model was accepted; Conflict when there is none."""
        return await self._run(self._talk.call(requests.retry(job_id, model)))

    async def list(self, **filters: Unpack[Filters]) -> Page[Job]:
        """A page of jobs, newest first; `cursor` goes on where a page ended."""
        return await self._run(self._talk.call(requests.list_jobs(filters)))

    async def deliveries(self, job_id: str) -> Sequence[Message]:
        """The webhook messages of the job, with a receipt for each try."""
        return await self._run(self._talk.call(requests.deliveries(job_id)))

    async def audit(self, job_id: str) -> Sequence[AuditRecord]:
        """The job's trail; the key needs the scope audit."""
        return await self._run(self._talk.call(requests.audit(job_id)))

    async def models(self) -> Sequence[Model]:
        """The models that Vigil knows, with prices and access."""
        return await self._run(self._talk.call(requests.list_models()))

    async def status(self) -> Status:
        """The state of the whole: queue, workers, circuits."""
        return await self._run(self._talk.call(requests.status()))

    async def request(
        self,
        method: Method,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        repeatable: bool | None = None,
    ) -> Any:
        """The JSON of any other route, as it comes. Unless told otherwise, GET and DELETE alone are repeatable."""
        again = method in {"GET", "DELETE"} if repeatable is None else repeatable
        return await self._run(self._talk.call(requests.raw(method, path, body, headers, repeatable=again)))

    def _new_key(self) -> str:
        return self._clock.dice(16).hex()

    async def _run(self, steps: Steps[T]) -> T:
        hands, told = _HttpActions(self._http), None
        try:
            while True:
                told = await hands.do(steps.send(told))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _stream(self, steps: Telling[None]) -> AsyncGenerator[Event]:
        hands, told = _HttpActions(self._http), None
        try:
            while True:
                step = steps.send(told)
                if isinstance(step, Event):
                    yield step
                    told = None
                else:
                    told = await hands.do(step)
        except StopIteration:
            return
        finally:
            await hands.hang_up()


class _HttpActions:
    """Does what a conversation asks for; at most one stream is open."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        self._answer: httpx2.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def do(self, deed: Deed) -> Told:
        try:
            match deed:
                case SendRequest(ask):
                    return reply(await self._http.send(request(self._http, ask)))
                case OpenStream(ask):
                    return await self._open(ask)
                case ReadStream():
                    return await self._more()
                case CloseStream():
                    await self.hang_up()
                case Sleep(seconds):
                    await asyncio.sleep(seconds)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            return lost(error)
        return None

    async def _open(self, ask: ApiRequest[Any]) -> Reply:
        await self.hang_up()
        self._answer = answer = await self._http.send(request(self._http, ask), stream=True)
        if answer.status_code != _OK:
            await answer.aread()
            return reply(answer)
        self._chunks = answer.aiter_bytes()
        return Reply(_OK, lower(answer.headers))

    async def _more(self) -> bytes:
        if self._chunks is not None:
            async for chunk in self._chunks:
                if chunk:
                    return chunk
        return b""

    async def hang_up(self) -> None:
        answer, self._answer, self._chunks = self._answer, None, None
        if answer is not None:
            await answer.aclose()
