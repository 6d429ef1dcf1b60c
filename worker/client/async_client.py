"""`AsyncVigil`, the client for asyncio: performs the actions of `protocol.py` with httpx2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import httpx2
from pydantic import SecretStr

from . import requests
from .clock import Clock
from .environment import connection_settings
from .httpx_adapter import client_options, connection_lost, http_request, lower_case, to_reply
from .models import CancelledJob, Event, Job
from .protocol import (
    Action,
    CallSteps,
    CloseStream,
    Conversation,
    OpenStream,
    ReadStream,
    Reply,
    Result,
    SendRequest,
    Sleep,
    StreamSteps,
)
from .requests import ApiRequest, Filters, Method, NewJob
from .responses import AuditRecord, BatchRow, Explanation, JobGroup, Message, Model, Page, Status
from .retry import Retries

T = TypeVar("T")
_OK = httpx2.codes.OK


class AsyncVigil:
    """Calls the API of Vigil for asyncio.

    Without `url` and `key` it reads VIGIL_URL and VIGIL_API_KEY. Use it in one event loop. Exceptions are in
    `errors.py`.
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
        self.url, secret = connection_settings(url, key)
        self._clock = clock or Clock()
        self._conversation = Conversation(self.url, retries or Retries(), self._clock)
        self._http = httpx2.AsyncClient(**client_options(self.url, secret, agent))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def submit(self, *, wait: float = 0, **job: Unpack[NewJob]) -> Job:
        """Submit a job and return it; `wait` waits up to that many seconds (at most 60) for its end.

        One call makes one job, however often it has to be sent: without an `idempotency_key` it gets one.
        """
        key = job.get("idempotency_key") or self._new_key()
        return await self._run(self._conversation.call(requests.submit(job, key, wait)))

    async def batch(
        self,
        jobs: Sequence[NewJob],
        *,
        idempotency_key: str | None = None,
        group: str | None = None,
        all_or_nothing: bool = False,
    ) -> Sequence[BatchRow]:
        """Submit up to 1,000 jobs and return one outcome for each, in order.

        `group`: the group that they join; without it they get one of their own, which each job names. With
        `all_or_nothing` the batch raises ApiError if one job is refused, and none is accepted.
        """
        request = requests.batch(jobs, idempotency_key or self._new_key(), group, all_or_nothing=all_or_nothing)
        return await self._run(self._conversation.call(request))

    async def group(self, name: str) -> JobGroup:
        """Return how many jobs of the group have each status; `list(group=name)` returns its jobs."""
        return await self._run(self._conversation.call(requests.group(name)))

    async def get(self, job_id: str) -> Job:
        """Return the job as it is now."""
        return await self._run(self._conversation.call(requests.get(job_id)))

    async def wait(self, job_id: str, timeout: float | None = None) -> Job:  # noqa: ASYNC109  the same name as in the client that blocks
        """Return the settled job, also when the API restarts in between.

        Raise StillRunning if the job has not settled within `timeout` seconds.
        """
        return await self._run(self._conversation.wait(job_id, timeout))

    def events(self, job_id: str, *, after: int = 0, offset: int = 0) -> AsyncGenerator[Event]:
        """Yield all events after number `after`, then live, to the last one; each once and in order over reconnections.

        Text comes as `job.output.delta` events, from character `offset` on. Call `aclose()` on the generator if
        you leave it early.
        """
        return self._stream(self._conversation.events(job_id, after, offset))

    async def why(self, job_id: str) -> Explanation:
        """Return what became of the job, in one paragraph for a person."""
        return await self._run(self._conversation.call(requests.why(job_id)))

    async def cancel(self, job_id: str) -> CancelledJob:
        """Request that the job stops, and return it. A second request changes nothing."""
        return await self._run(self._conversation.call(requests.cancel(job_id)))

    async def retry(self, job_id: str, model: str | None = None) -> Job:
        """Accept the job's open offer of a faster model, and return it. Raise Conflict if there is no offer."""
        return await self._run(self._conversation.call(requests.retry(job_id, model)))

    async def rerun(self, job_id: str, *, idempotency_key: str | None = None) -> Job:
        """Run a failed, expired or cancelled job again, and return the new job.

        One call makes one job, however often it has to be sent. Raise Conflict after a block, and when the job is not
        over or completed.
        """
        key = idempotency_key or self._new_key()
        return await self._run(self._conversation.call(requests.rerun(job_id, key)))

    async def list(self, **filters: Unpack[Filters]) -> Page[Job]:
        """Return a page of jobs, newest first; `cursor` is the `next_cursor` of the page before."""
        return await self._run(self._conversation.call(requests.list_jobs(filters)))

    async def deliveries(self, job_id: str) -> Sequence[Message]:
        """Return the webhook messages of the job, with a receipt for each delivery attempt."""
        return await self._run(self._conversation.call(requests.deliveries(job_id)))

    async def audit(self, job_id: str) -> Sequence[AuditRecord]:
        """Return the job's audit trail; the key needs the scope `audit`."""
        return await self._run(self._conversation.call(requests.audit(job_id)))

    async def models(self) -> Sequence[Model]:
        """Return the known models, with prices and access."""
        return await self._run(self._conversation.call(requests.list_models()))

    async def status(self) -> Status:
        """Return the state of queue, workers, account, circuits and pauses."""
        return await self._run(self._conversation.call(requests.status()))

    async def lift_quarantine(self, end_user: str, *, reason: str) -> Mapping[str, Any]:
        """Lift the quarantine of an end user, named by the app's own id or the safety identifier, and return it as it
        was; the key needs the scope `ops`. The reason is kept in the audit trail.
        """
        return await self._run(self._conversation.call(requests.lift_quarantine(end_user, reason)))

    async def request(
        self,
        method: Method,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        repeatable: bool | None = None,
    ) -> Any:
        """Call any other route and return its JSON. By default only GET and DELETE are sent again after a failure."""
        again = method in {"GET", "DELETE"} if repeatable is None else repeatable
        return await self._run(self._conversation.call(requests.raw(method, path, body, headers, repeatable=again)))

    def _new_key(self) -> str:
        return self._clock.random_hex(16)

    async def _run(self, steps: CallSteps[T]) -> T:
        actions, result = _HttpActions(self._http), None
        try:
            while True:
                result = await actions.perform(steps.send(result))
        except StopIteration as end:
            answer: T = end.value
            return answer

    async def _stream(self, steps: StreamSteps[None]) -> AsyncGenerator[Event]:
        actions, result = _HttpActions(self._http), None
        try:
            while True:
                step = steps.send(result)
                if isinstance(step, Event):
                    yield step
                    result = None
                else:
                    result = await actions.perform(step)
        except StopIteration:
            return
        finally:
            await actions.close_stream()


class _HttpActions:
    """Performs the actions of one conversation; at most one stream is open."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        self._response: httpx2.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def perform(self, action: Action) -> Result:
        try:
            match action:
                case SendRequest(request):
                    return to_reply(await self._http.send(http_request(self._http, request)))
                case OpenStream(request):
                    return await self._open(request)
                case ReadStream():
                    return await self._read()
                case CloseStream():
                    await self.close_stream()
                case Sleep(seconds):
                    await asyncio.sleep(seconds)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            return connection_lost(error)
        return None

    async def _open(self, request: ApiRequest[Any]) -> Reply:
        await self.close_stream()
        self._response = response = await self._http.send(http_request(self._http, request), stream=True)
        if response.status_code != _OK:
            await response.aread()
            return to_reply(response)
        self._chunks = response.aiter_bytes()
        return Reply(_OK, lower_case(response.headers))

    async def _read(self) -> bytes:
        if self._chunks is not None:
            async for chunk in self._chunks:
                if chunk:
                    return chunk
        return b""

    async def close_stream(self) -> None:
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            await response.aclose()
