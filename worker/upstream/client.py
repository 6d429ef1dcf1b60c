"""Calls the provider: a few methods, no retries, no exceptions.

The SDK adds authentication and headers and recognises HTTP errors; `UpstreamAnswer` reads the body. It must not depend
on jobs or attempts; `session` decides which request follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import date
from typing import Any, Final, NamedTuple, cast
from urllib.parse import quote

import httpx2
import openai

from worker.clock import Clock
from worker.jobs.record import Usage
from worker.safety.stream import Closed, Opened, Rejected, StreamEvent, Terminal
from worker.upstream.answer import UpstreamAnswer
from worker.upstream.body import BODY, AnswerBody
from worker.upstream.call import UpstreamCall
from worker.upstream.errors import closed_from
from worker.upstream.headers import rejected_from, request_id
from worker.upstream.http1_transport import Http1Transport
from worker.upstream.payload import BadJson, parse
from worker.upstream.proxy_transport import ProxyTransport, environment_proxy
from worker.upstream.request import body_of, path_of
from worker.upstream.token_limit import NEW, OLD, TokenLimit
from worker.upstream.tolerant_fields import day

OPENAI: Final = "https://api.openai.com/v1"
_CLOCK: Final = Clock()
_HEADERS: Final = {"Accept-Encoding": "identity"}  # a compressed stream is a buffered stream


class CancelResult(NamedTuple):
    """The result of a cancellation upstream."""

    took_effect: bool  # the provider says (or, for a foreground stream, promises) that it stopped
    status: str | None = None  # the response's status in the provider's answer
    usage: Usage | None = None
    http_status: int | None = None


class ModelPage(NamedTuple):
    """The provider's page about one model; `known` is true if it really is such a page."""

    known: bool
    request_id: str | None
    shutdown_date: date | None = None


class ProviderPage(NamedTuple):
    """A JSON object of the provider, unchanged."""

    body: dict[str, Any]
    request_id: str | None


class Provider:
    """One account at one provider. Every method answers with values; `repr` shows no key."""

    def __init__(
        self,
        api_key: str,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        *,
        connect_timeout: float = 10.0,
        answer_timeout: float = 30.0,
        user_agent: str = "vigil",
        proxy: str | None = "environment",
        clock: Clock = _CLOCK,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """`answer_timeout` limits polls, cancels and the opening of a resumed stream; the first call has no limit."""
        self.base_url = base_url or OPENAI
        self.proxy = environment_proxy(self.base_url) if proxy == "environment" else proxy
        self._answer_timeout = answer_timeout
        self._limit = TokenLimit(self.base_url)
        self._now = clock.now
        if transport is None and self.proxy is None:
            transport = Http1Transport(connect_timeout=connect_timeout)
        self._sdk = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=self.base_url,
            max_retries=0,
            timeout=None,
            default_headers={**_HEADERS, "User-Agent": user_agent},
            http_client=httpx2.AsyncClient(
                transport=transport or ProxyTransport(connect_timeout=connect_timeout, proxy=self.proxy),
                timeout=None,
                follow_redirects=False,
                trust_env=False,
            ),
        )
        self._sdk.organization = organization  # the SDK would take it from the environment, past Vigil's settings
        self._sdk.project = project

    def __repr__(self) -> str:
        """Return a text without the key."""
        return "Provider()"

    def open(self, call: UpstreamCall) -> UpstreamAnswer:
        """Return the answer to `call`; nothing is sent before its first `read()`."""

        def refused(status: int, error_body: bytes) -> bool:
            return self._limit.refused(call.model, status, error_body)

        async def send() -> httpx2.Response:
            return await self._post(path_of(call), call.client_request_id, body)

        chat = call.mode == "chat"
        body = body_of(call, self._limit.names(call.model))
        renamable = chat and call.params.get("max_output_tokens") is not None and not {NEW, OLD} & call.params.keys()
        return UpstreamAnswer(send, on="create", chat=chat, now=self._now, refused=refused if renamable else None)

    def resume(self, response_id: str, starting_after: int | None, client_request_id: str) -> UpstreamAnswer:
        """Return the stream of a background response from the event after `starting_after`."""
        query: dict[str, object] = {"stream": "true"}
        if starting_after is not None:
            query["starting_after"] = starting_after

        async def send() -> httpx2.Response:
            async with asyncio.timeout(self._answer_timeout):
                return await self._get(_response_path(response_id), client_request_id, query, "text/event-stream")

        return UpstreamAnswer(send, on="resume", chat=False, now=self._now)

    def open_poll(self, response_id: str, client_request_id: str) -> UpstreamAnswer:
        """Return the answer to one poll of a response; nothing is sent before its first `read()`."""

        async def send() -> httpx2.Response:
            async with asyncio.timeout(self._answer_timeout):
                return await self._get(_response_path(response_id), client_request_id, {}, "application/json")

        return UpstreamAnswer(send, on="poll", chat=False, now=self._now)

    async def poll(self, response_id: str, client_request_id: str) -> list[StreamEvent]:
        """Poll a response: return Opened and its state, or one Rejected or Closed."""
        return await self._collect(self.open_poll(response_id, client_request_id))

    async def cancel(self, response_id: str, client_request_id: str) -> CancelResult:
        """Ask the provider to stop a background response, and return whether it did."""

        async def send() -> httpx2.Response:
            return await self._post(f"{_response_path(response_id)}/cancel", client_request_id, None)

        http_status: int | None = None
        for event in await self._collect(UpstreamAnswer(send, on="poll", chat=False, now=self._now)):
            if type(event) is Terminal:
                return CancelResult(event.status == "cancelled", event.status, event.usage, http_status)
            if type(event) is Rejected:
                return CancelResult(took_effect=False, http_status=event.http_status)
            if type(event) is Opened:
                http_status = event.http_status
        return CancelResult(took_effect=False, http_status=http_status)

    async def get_model(self, model: str, client_request_id: str, seconds: float) -> ModelPage | Rejected | Closed:
        """Get the page of one model, which shows whether this key may use it; the cheapest request there is."""
        page = await self.get_page(f"/models/{quote(model, safe='')}", client_request_id, seconds)
        if not isinstance(page, ProviderPage):
            return page
        return ModelPage(isinstance(page.body.get("id"), str), page.request_id, day(page.body.get("shutdown_date")))

    async def get_page(
        self, path: str, client_request_id: str, seconds: float, body: dict[str, Any] | None = None
    ) -> ProviderPage | Rejected | Closed:
        """Request a page that is a JSON object; anything else under 200 gives an empty one. A `body` is posted."""
        opened = False
        try:
            async with asyncio.timeout(seconds):
                if body is None:
                    answer = await self._get(path, client_request_id, {}, "application/json")
                else:
                    answer = await self._post(path, client_request_id, body)
                opened = True
                raw = await cast("AnswerBody", answer.extensions[BODY]).read_error_body()
        except openai.APIStatusError as error:
            refused = error.response
            return rejected_from(refused.status_code, refused.headers, refused.content, self._now(), on="create")
        except Exception as error:  # noqa: BLE001 - the room's border: nothing foreign passes
            return closed_from(error, opened=opened)
        try:
            parsed = parse(raw)
        except BadJson:
            parsed = None
        return ProviderPage(parsed if isinstance(parsed, dict) else {}, request_id(answer.headers))

    async def aclose(self) -> None:
        """Close every connection to the provider."""
        await self._sdk.close()

    async def _collect(self, answer: UpstreamAnswer) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        try:
            async with asyncio.timeout(self._answer_timeout):
                while batch := await answer.read():
                    events += batch
        except TimeoutError:
            return [Closed("cut", "TimeoutError", opened=bool(events))]
        finally:
            await answer.aclose()
        if len(events) > 1 and type(events[-1]) is Closed:
            if events[-1].how != "clean":
                return [events[-1]]
            events.pop()
        return events

    def _post(self, path: str, request_id: str, body: dict[str, Any] | None) -> Coroutine[Any, Any, httpx2.Response]:
        accept = "application/json" if body is None else "text/event-stream"
        sent = self._sdk.post(
            path,
            cast_to=httpx2.Response,
            body=body,
            options={"headers": {"X-Client-Request-Id": request_id, "Accept": accept}},
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        # for `cast_to=httpx2.Response` the SDK gives the response itself, unread
        return cast("Coroutine[Any, Any, httpx2.Response]", sent)

    def _get(
        self, path: str, request_id: str, query: dict[str, object], accept: str
    ) -> Coroutine[Any, Any, httpx2.Response]:
        sent = self._sdk.get(
            path,
            cast_to=httpx2.Response,
            options={"headers": {"X-Client-Request-Id": request_id, "Accept": accept}, "params": query},
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        return cast("Coroutine[Any, Any, httpx2.Response]", sent)


def _response_path(response_id: str) -> str:
    name = quote(response_id, safe="")
    return "/responses/" + (name if name.strip(".") else name.replace(".", "%2E"))  # `..` would be another page
