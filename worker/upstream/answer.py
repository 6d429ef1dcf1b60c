"""One HTTP answer being read: from the socket's bytes to batches of StreamEvents.

Knows one connection and nothing of reconnecting. The hot path of Vigil: every delta of every stream goes through
`Answer.read`. No foreign exception leaves it; the last batch says how it ended (Closed or Rejected).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Final, cast

import httpx2
import openai

from worker.safety.stream import Alive, Closed, StreamEvent
from worker.upstream.body import BODY, Body
from worker.upstream.errors import closed_from
from worker.upstream.headers import On, opened_from, rejected_from
from worker.upstream.payload import BadJson, parse
from worker.upstream.sse import FrameTooLarge, Splitter
from worker.upstream.translate import translate, translate_snapshot
from worker.upstream.translate_chat import ChatTranslator, translate_chat_completion

_DONE: Final = b"[DONE]"
_MOST_JSON: Final = 64 * 1024 * 1024


class Answer:
    """The answer to one request: `read()` until it gives an empty list, then or before `aclose()`."""

    __slots__ = (
        "_body",
        "_chat",
        "_ended",
        "_json",
        "_on",
        "_opening",
        "_response",
        "_send",
        "_splitter",
        "_stopped",
        "_wall",
    )

    def __init__(
        self,
        send: Callable[[], Coroutine[Any, Any, httpx2.Response]],
        *,
        on: On,
        chat: bool,
        wall: Callable[[], datetime],
    ) -> None:
        self._send = send
        self._on: On = on
        self._chat = ChatTranslator() if chat else None
        self._wall = wall
        self._splitter = Splitter()
        self._opening: asyncio.Task[httpx2.Response] | None = None
        self._response: httpx2.Response | None = None
        self._body: Body | None = None
        self._json: list[bytes] | None = None  # the pieces of a body that is one JSON value
        self._ended = False
        self._stopped = False  # by aclose

    async def read(self) -> list[StreamEvent]:
        """The events of what arrived next; empty when there is nothing more. The first call sends the request."""
        body = self._body
        if body is None:
            if self._ended or self._stopped or self._opening is not None:
                return []  # a request that was broken off while it was sent may have run: it is never sent again
            return await self._open()
        try:
            while True:
                chunk = await body.read()
                if not chunk:
                    return await self._finish(self._last_events())
                if events := self._digest(chunk):
                    return await self._finish(events) if self._ended else events
        except Exception as error:  # noqa: BLE001 - the room's border: nothing foreign passes
            if self._stopped:
                return []
            events = self._digest(body.rest())
            if not self._ended:
                events.append(closed_from(error, opened=True))
            return await self._finish(events)

    def trailing(self) -> list[StreamEvent]:
        """The events that have arrived already, without waiting: what came with the terminal event."""
        if self._body is None:
            return []
        return [event for event in self._digest(self._body.rest()) if type(event) is not Closed]

    async def aclose(self) -> None:
        """Close the connection at once; a pending `read()` returns an empty list."""
        self._stopped = self._ended = True
        self._body = None
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        await self._shut()

    async def _open(self) -> list[StreamEvent]:
        self._opening = asyncio.ensure_future(self._send())
        try:
            response = self._response = await self._opening
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._stopped and not (task and task.cancelling()):
                return []  # it was aclose that cancelled the request, not somebody who cancels us
            raise
        except openai.APIStatusError as error:
            self._ended = True
            answer = error.response
            return [rejected_from(answer.status_code, answer.headers, answer.content, self._wall(), on=self._on)]
        except Exception as error:  # noqa: BLE001 - the room's border: nothing foreign passes
            self._ended = True
            return [closed_from(error, opened=False)]
        if self._stopped:
            await self._shut()
            return []
        self._body = cast("Body", response.extensions[BODY])
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        events: list[StreamEvent] = [opened_from(response.status_code, response.headers, resumed=self._on != "create")]
        if kind == "application/json" or kind.endswith("+json"):
            self._json = []
        elif kind == "text/html":
            events.append(Closed("bad_json", "text/html"))  # a portal or an edge page under 200
            return await self._finish(events)
        return events

    def _digest(self, chunk: bytes) -> list[StreamEvent]:
        """The events that `chunk` completes; sets `_ended` when what follows can't be trusted."""
        if self._json is not None:
            return self._gather(chunk)
        splitter = self._splitter
        comments = splitter.comments
        try:
            payloads = splitter.feed(chunk)
            if len(payloads) == 1 and self._chat is None and payloads[0] != _DONE:
                return translate(parse(payloads[0]))
        except (BadJson, FrameTooLarge) as error:
            return self._garbled(error)
        events: list[StreamEvent] = []
        for payload in payloads:
            try:
                events += self._translate(payload)
            except BadJson as error:
                return [*events, *self._garbled(error)]
        if not events and splitter.comments > comments:
            events.append(Alive(None, "comment"))
        return events

    def _translate(self, payload: bytes) -> list[StreamEvent]:
        if payload == _DONE:
            return self._chat.done() if self._chat is not None else []
        data = parse(payload)
        return translate(data) if self._chat is None else self._chat.feed(data)

    def _garbled(self, error: Exception) -> list[StreamEvent]:
        self._ended = True
        return [Closed("bad_json", type(error).__name__)]

    def _gather(self, piece: bytes) -> list[StreamEvent]:
        pieces = cast("list[bytes]", self._json)
        pieces.append(piece)
        if len(pieces) % 64 == 0 and sum(map(len, pieces)) > _MOST_JSON:
            return self._garbled(FrameTooLarge())
        return []

    def _last_events(self) -> list[StreamEvent]:
        """What the end of the body tells: the rest, and that it was the end."""
        events: list[StreamEvent] = []
        try:
            if self._json is not None:
                data = parse(b"".join(self._json))
                events += translate_snapshot(data) if self._chat is None else translate_chat_completion(data)
            elif (rest := self._splitter.close()) is not None:
                # A whole payload without its blank line is an answer of a hasty server, not half a frame.
                events += self._translate(rest)
        except BadJson:
            return [*events, Closed("half_frame" if self._json is None else "bad_json", "BadJson")]
        if self._chat is not None and self._json is None:
            events += self._chat.end()
        events.append(Closed("clean"))
        return events

    async def _finish(self, events: list[StreamEvent]) -> list[StreamEvent]:
        self._ended = True
        self._body = None
        await self._shut()
        return events

    async def _shut(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            with contextlib.suppress(Exception):  # closing what is broken already
                await response.aclose()
