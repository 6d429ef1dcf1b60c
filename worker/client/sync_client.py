"""`Vigil`, the synchronous client: performs the actions of `protocol.py` with httpx2."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
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


class Vigil:
    """Calls the API of Vigil.

    Without `url` and `key` it reads VIGIL_URL and VIGIL_API_KEY. Threads may share it. Exceptions are in `errors.py`.
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
        self._http = httpx2.Client(**client_options(self.url, secret, agent))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def submit(self, *, wait: float = 0, **job: Unpack[NewJob]) -> Job:
        """Submit a job and return it; `wait` waits up to that many seconds (at most 60) for its end.

        One call makes one job, however often it has to be sent: without an `idempotency_key` it gets one.
        """
        key = job.get("idempotency_key") or self._new_key()
        return self._run(self._conversation.call(requests.submit(job, key, wait)))

    def batch(
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
        return self._run(self._conversation.call(request))

    def group(self, name: str) -> JobGroup:
        """Return how many jobs of the group have each status; `list(group=name)` returns its jobs."""
        return self._run(self._conversation.call(requests.group(name)))

    def get(self, job_id: str) -> Job:
        """Return the job as it is now."""
        return self._run(self._conversation.call(requests.get(job_id)))

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """Return the settled job, also when the API restarts in between.

        Raise StillRunning if the job has not settled within `timeout` seconds.
        """
        return self._run(self._conversation.wait(job_id, timeout))

    def events(self, job_id: str, *, after: int = 0, offset: int = 0) -> Iterator[Event]:
        """Yield all events after number `after`, then live, to the last one; each once and in order over reconnections.

        Text comes as `job.output.delta` events, from character `offset` on.
        """
        return self._stream(self._conversation.events(job_id, after, offset))

    def why(self, job_id: str) -> Explanation:
        """Return what became of the job, in one paragraph for a person."""
        return self._run(self._conversation.call(requests.why(job_id)))

    def cancel(self, job_id: str) -> CancelledJob:
        """Request that the job stops, and return it. A second request changes nothing."""
        return self._run(self._conversation.call(requests.cancel(job_id)))

    def retry(self, job_id: str, model: str | None = None) -> Job:
        """Accept the job's open offer of a faster model, and return it. Raise Conflict if there is no offer."""
        return self._run(self._conversation.call(requests.retry(job_id, model)))

    def rerun(self, job_id: str, *, idempotency_key: str | None = None) -> Job:
        """Run a failed, expired or cancelled job again, and return the new job.

        One call makes one job, however often it has to be sent. Raise Conflict after a block, and when the job is not
        over or completed.
        """
        key = idempotency_key or self._new_key()
        return self._run(self._conversation.call(requests.rerun(job_id, key)))

    def list(self, **filters: Unpack[Filters]) -> Page[Job]:
        """Return a page of jobs, newest first; `cursor` is the `next_cursor` of the page before."""
        return self._run(self._conversation.call(requests.list_jobs(filters)))

    def deliveries(self, job_id: str) -> Sequence[Message]:
        """Return the webhook messages of the job, with a receipt for each delivery attempt."""
        return self._run(self._conversation.call(requests.deliveries(job_id)))

    def audit(self, job_id: str) -> Sequence[AuditRecord]:
        """Return the job's audit trail; the key needs the scope `audit`."""
        return self._run(self._conversation.call(requests.audit(job_id)))

    def models(self) -> Sequence[Model]:
        """Return the known models, with prices and access."""
        return self._run(self._conversation.call(requests.list_models()))

    def status(self) -> Status:
        """Return the state of queue, workers, account, circuits and pauses."""
        return self._run(self._conversation.call(requests.status()))

    def lift_quarantine(self, end_user: str, *, reason: str) -> Mapping[str, Any]:
        """Lift the quarantine of an end user, named by the app's own id or the safety identifier, and return it as it
        was; the key needs the scope `ops`. The reason is kept in the audit trail.
        """
        return self._run(self._conversation.call(requests.lift_quarantine(end_user, reason)))

    def request(
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
        return self._run(self._conversation.call(requests.raw(method, path, body, headers, repeatable=again)))

    def _new_key(self) -> str:
        return self._clock.random_hex(16)

    def _run(self, steps: CallSteps[T]) -> T:
        actions, result = _HttpActions(self._http), None
        try:
            while True:
                result = actions.perform(steps.send(result))
        except StopIteration as end:
            answer: T = end.value
            return answer

    def _stream(self, steps: StreamSteps[None]) -> Iterator[Event]:
        actions, result = _HttpActions(self._http), None
        try:
            while True:
                step = steps.send(result)
                if isinstance(step, Event):
                    yield step
                    result = None
                else:
                    result = actions.perform(step)
        except StopIteration:
            return
        finally:
            actions.close_stream()


class _HttpActions:
    """Performs the actions of one conversation; at most one stream is open."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http
        self._response: httpx2.Response | None = None
        self._chunks: Iterator[bytes] | None = None

    def perform(self, action: Action) -> Result:
        try:
            match action:
                case SendRequest(request):
                    return to_reply(self._http.send(http_request(self._http, request)))
                case OpenStream(request):
                    return self._open(request)
                case ReadStream():
                    return self._read()
                case CloseStream():
                    self.close_stream()
                case Sleep(seconds):
                    time.sleep(seconds)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            return connection_lost(error)
        return None

    def _open(self, request: ApiRequest[Any]) -> Reply:
        self.close_stream()
        self._response = response = self._http.send(http_request(self._http, request), stream=True)
        if response.status_code != _OK:
            response.read()
            return to_reply(response)
        self._chunks = response.iter_bytes()
        return Reply(_OK, lower_case(response.headers))

    def _read(self) -> bytes:
        for chunk in self._chunks or ():
            if chunk:
                return chunk
        return b""

    def close_stream(self) -> None:
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            response.close()
