"""A small synchronous client of the HTTP API: typed answers to what can go wrong, an event stream with resume."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, Self
from urllib.parse import quote, urlsplit

import httpx2

from worker.cli.door import Door, find_door
from worker.cli.errors import BAD, USAGE, CliError

_LOCAL: Final = {"127.0.0.1", "localhost", "::1"}
_CALLERS_FAULT: Final = {400, 413, 415, 422}
_TIMEOUT: Final = httpx2.Timeout(75.0, connect=5.0)  # the longest wait of the API is 60 s
_SILENCE: Final = httpx2.Timeout(45.0, connect=5.0)  # a comment comes every 15 s
_RECONNECTS: Final = 20
_LONGEST_PAUSE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Happened:
    """One event of a job's stream: `body` as it came, `data` what it is about; deltas have no seq."""

    type: str
    seq: int | None
    data: dict[str, Any]
    body: dict[str, Any]


class Client:
    """Vigil's HTTP API; every failure is a CliError with one line that says what to do."""

    def __init__(self, door: Door | None = None) -> None:
        self.door = door or find_door()
        if self.door.key is None:
            raise CliError(
                "no API key: set VIGIL_API_KEY (`vigil keys create --app NAME` makes one), "
                "or start `vigil up` in this folder, whose key is then used",
                USAGE,
            )
        host = urlsplit(self.door.url).hostname or ""
        try:
            self._http = httpx2.Client(
                base_url=self.door.url,
                headers={"Authorization": f"Bearer {self.door.key.get_secret_value()}", "User-Agent": "vigil-cli"},
                timeout=_TIMEOUT,
                trust_env=host not in _LOCAL,  # a proxy can't reach our own machine
            )
        except (httpx2.InvalidURL, UnicodeEncodeError, ValueError):
            raise CliError(
                "wrong settings: VIGIL_URL or VIGIL_API_KEY holds characters that can't be sent", USAGE
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(
        self, method: Literal["GET", "POST", "DELETE"], path: str, body: object = None, **headers: str
    ) -> dict[str, Any]:
        """The JSON answer. `headers`: underscores stand for dashes."""
        try:
            answer = self._http.request(
                method,
                path,
                content=None if body is None else json.dumps(body).encode(),
                headers={"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}},
            )
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None
        return self._read(answer)

    def job(self, job_id: str, wait: int = 0) -> dict[str, Any]:
        """The job now, or at its next change of status within `wait` seconds."""
        return self.call("GET", f"/v1/jobs/{quote(job_id, safe='')}" + (f"?wait={wait}" if wait else ""))

    def events(self, job_id: str) -> Iterator[Happened]:
        """All events so far, then live, until the terminal one; a dropped connection is resumed where it was."""
        seen, text, failures = 0, 0, 0
        while True:
            try:
                for event in self._stream(job_id, seen, text):
                    failures = 0
                    if event.seq is not None:
                        seen = event.seq
                    elif event.type == "job.output.delta":
                        text = int(event.data.get("offset", 0)) + len(str(event.data.get("delta", "")))
                    yield event
                    if event.type in TERMINAL_EVENTS:
                        return
            except httpx2.HTTPError as error:
                if isinstance(error, httpx2.ConnectError) and seen == 0 and failures == 0:
                    raise self._unreachable(error) from None
            failures += 1
            if failures > _RECONNECTS:
                raise CliError(f"the events of {job_id} broke off {failures} times; the job itself goes on")
            time.sleep(min(_LONGEST_PAUSE, 0.1 * 2**failures) if failures > 1 else 0)

    def _stream(self, job_id: str, after: int, offset: int) -> Iterator[Happened]:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(after)} if after else {})}
        path = f"/v1/jobs/{quote(job_id, safe='')}/events" + (f"?offset={offset}" if offset else "")
        with self._http.stream("GET", path, headers=headers, timeout=_SILENCE) as answer:
            if answer.status_code != httpx2.codes.OK:
                answer.read()
                self._read(answer)
            yield from parse_events(answer.iter_lines())

    def _unreachable(self, error: httpx2.HTTPError) -> CliError:
        url = self.door.url
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return CliError(f"no Vigil answers at {url}; start one with `vigil up`, or set VIGIL_URL")
        if isinstance(error, httpx2.TimeoutException):
            return CliError(f"Vigil at {url} took too long to answer; try again, or look with `vigil doctor`")
        return CliError(f"the connection to {url} broke ({type(error).__name__}); try again")

    def _read(self, answer: httpx2.Response) -> dict[str, Any]:
        body: Any = None
        with suppress(ValueError):
            body = answer.json()
        if answer.is_success and isinstance(body, dict):
            return body
        if answer.is_success or not isinstance(body, dict):
            raise CliError(f"{self.door.url} answered {answer.status_code} without JSON; is that a Vigil?")
        status, code = answer.status_code, str(body.get("code") or "")
        if status == httpx2.codes.UNAUTHORIZED:
            where = f"the one in {self.door.left_by_up}" if self.door.left_by_up else "VIGIL_API_KEY"
            raise CliError(
                f"{self.door.url} doesn't know this API key ({where}); set VIGIL_API_KEY to a live one", USAGE
            )
        if code == "insufficient_scope":
            said = str(body.get("detail") or "This key lacks a scope.").rstrip(".")
            raise CliError(f"{said}; `vigil keys create --app NAME --scope SCOPE` makes a key that has it ({code})")
        said = str(body.get("detail") or body.get("title") or f"status {status}").rstrip(".")
        faults = [
            f"{one.get('pointer') or ''} {one['detail']}".strip().rstrip(".")
            for one in body.get("errors") or []
            if isinstance(one, dict) and one.get("detail") and str(one["detail"]).rstrip(".") not in said
        ]
        line = f"{said}{': ' if faults else ''}{'; '.join(faults)}{f' ({code})' if code else ''}"
        raise CliError(line, USAGE if status in _CALLERS_FAULT else BAD)


TERMINAL_EVENTS: Final = frozenset({"job.completed", "job.blocked", "job.failed", "job.cancelled", "job.expired"})


def parse_events(lines: Iterator[str]) -> Iterator[Happened]:
    """Events out of the lines of an SSE body; comments and frames that are no JSON objects are skipped."""
    kind, number, data = "", "", list[str]()
    for line in lines:
        if line:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match field:
                case "event":
                    kind = value
                case "id":
                    number = value
                case "data":
                    data.append(value)
                case _:
                    pass  # a comment, or a field we don't know
            continue
        if data:
            with suppress(ValueError):
                body = json.loads("\n".join(data))
                if isinstance(body, dict):
                    yield _happened(kind, number, body)
        kind, number, data = "", "", []


def _happened(kind: str, number: str, body: dict[str, Any]) -> Happened:
    seq = body.get("seq", int(number) if number.isdigit() else None)
    inner = body.get("data")
    # a delta is {"offset", "delta"} itself; events carry theirs under `data`
    return Happened(kind or str(body.get("type", "")), seq, inner if isinstance(inner, dict) else body, body)
