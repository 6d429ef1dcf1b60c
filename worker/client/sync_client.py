"""`Vigil`: the client that blocks. What it says and when it says it again stands in `talk.py`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
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


class Vigil:
    """Vigil over HTTP; without arguments as VIGIL_URL and VIGIL_API_KEY say.

    Safe to share between threads. Errors are those of `worker.client.errors`.
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
        self._http = httpx2.Client(**manners(self.url, secret, agent))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Every connection is closed."""
        self._http.close()

    def submit(self, *, wait: float = 0, **job: Unpack[NewJob]) -> Job:
        """The accepted job, or with `wait` (at most 60 seconds) the job as it is then.

        One call makes one job, however often it has to be sent: without an `idempotency_key` it gets one.
        """
        key = job.get("idempotency_key") or self._new_key()
        return self._run(self._talk.call(requests.submit(job, key, wait)))

    def batch(self, jobs: Sequence[NewJob], *, idempotency_key: str | None = None) -> Sequence[BatchRow]:
        """One outcome per job, in order; at most 1,000 jobs."""
        return self._run(self._talk.call(requests.batch(jobs, idempotency_key or self._new_key())))

    def get(self, job_id: str) -> Job:
        """The job as it is now."""
        return self._run(self._talk.call(requests.get(job_id)))

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """The settled job; StillRunning when it has not settled within `timeout` seconds.

        A restart of the API in between is waited out.
        """
        return self._run(self._talk.wait(job_id, timeout))

    def events(self, job_id: str, *, after: int = 0, offset: int = 0) -> Iterator[Event]:
        """All events behind number `after`, then live, to the last one; each once and in order over reconnections.

        Text comes as `job.output.delta` events, from character `offset` on.
        """
        return self._stream(self._talk.events(job_id, after, offset))

    def cancel(self, job_id: str) -> CancelledJob:
        """The job after the request to stop it; asking again changes nothing."""
        return self._run(self._talk.call(requests.cancel(job_id)))

    def retry(self, job_id: str, model: str | None = None) -> Job:
        """The job after its open offer of a faster model was accepted; Conflict when there is none."""
        return self._run(self._talk.call(requests.retry(job_id, model)))

    def list(self, **filters: Unpack[Filters]) -> Page[Job]:
        """A page of jobs, newest first; `cursor` goes on where a page ended."""
        return self._run(self._talk.call(requests.list_jobs(filters)))

    def deliveries(self, job_id: str) -> Sequence[Message]:
        """The webhook messages of the job, with a receipt for each try."""
        return self._run(self._talk.call(requests.deliveries(job_id)))

    def audit(self, job_id: str) -> Sequence[AuditRecord]:
        """The job's trail; the key needs the scope audit."""
        return self._run(self._talk.call(requests.audit(job_id)))

    def models(self) -> Sequence[Model]:
        """The models that Vigil knows, with prices and access."""
        return self._run(self._talk.call(requests.list_models()))

    def status(self) -> Status:
        """The state of the whole: queue, workers, circuits."""
        return self._run(self._talk.call(requests.status()))

    def request(
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
        return self._run(self._talk.call(requests.raw(method, path, body, headers, repeatable=again)))

    def _new_key(self) -> str:
        return self._clock.dice(16).hex()

    def _run(self, steps: Steps[T]) -> T:
        hands, told = _HttpActions(self._http), None
        try:
            while True:
                told = hands.do(steps.send(told))
        except StopIteration as end:
            result: T = end.value
            return result

    def _stream(self, steps: Telling[None]) -> Iterator[Event]:
        hands, told = _HttpActions(self._http), None
        try:
            while True:
                step = steps.send(told)
                if isinstance(step, Event):
                    yield step
                    told = None
                else:
                    told = hands.do(step)
        except StopIteration:
            return
        finally:
            hands.hang_up()


class _HttpActions:
    """Does what a conversation asks for; at most one stream is open."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http
        self._answer: httpx2.Response | None = None
        self._chunks: Iterator[bytes] | None = None

    def do(self, deed: Deed) -> Told:
        try:
            match deed:
                case SendRequest(ask):
                    return reply(self._http.send(request(self._http, ask)))
                case OpenStream(ask):
                    return self._open(ask)
                case ReadStream():
                    return self._more()
                case CloseStream():
                    self.hang_up()
                case Sleep(seconds):
                    time.sleep(seconds)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            return lost(error)
        return None

    def _open(self, ask: ApiRequest[Any]) -> Reply:
        self.hang_up()
        self._answer = answer = self._http.send(request(self._http, ask), stream=True)
        if answer.status_code != _OK:
            answer.read()
            return reply(answer)
        self._chunks = answer.iter_bytes()
        return Reply(_OK, lower(answer.headers))

    def _more(self) -> bytes:
        for chunk in self._chunks or ():
            if chunk:
                return chunk
        return b""

    def hang_up(self) -> None:
        answer, self._answer, self._chunks = self._answer, None, None
        if answer is not None:
            answer.close()
