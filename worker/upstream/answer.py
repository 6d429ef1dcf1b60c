"""Reads one HTTP answer: from the socket's bytes to batches of StreamEvents.

Handles one connection; `session` reconnects. This is the hot path of Vigil: every delta of every stream goes through
`UpstreamAnswer.read`. It raises no exception of a library; the last batch says how it ended (Closed or Rejected).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Final, cast

import httpx2
import openai

from worker.jobs.record import Carrier
from worker.safety.stream import Closed, Created, Keepalive, StreamEvent
from worker.upstream.body import BODY, AnswerBody
from worker.upstream.body_kind import BodyKind, BodySniffer
from worker.upstream.errors import closed_from
from worker.upstream.headers import RequestKind, opened_from, rejected_from
from worker.upstream.payload import BadJson, parse, parse_frame, parse_surrogates
from worker.upstream.sse import FrameTooLarge, SseSplitter
from worker.upstream.surrogates import SurrogateJoiner
from worker.upstream.translate import translate, translate_snapshot
from worker.upstream.translate_chat import ChatTranslator
from worker.upstream.unreadable import block_among, error_in_words, value_of_cut
from worker.upstream.wide_encodings import Utf8Decoder
from worker.upstream.wrapped_answer import is_answer, shape_of, unwrap

_DONE: Final = b"[done]"
_MAX_JSON_BYTES: Final = 64 * 1024 * 1024


class UpstreamAnswer:
    """The answer to one request: call `read()` until it gives an empty list; call `aclose()` then or earlier."""

    __slots__ = (
        "_asked_chat",
        "_body",
        "_carrier",
        "_chat",
        "_ended",
        "_json",
        "_kind",
        "_now",
        "_on",
        "_opening",
        "_refused",
        "_send",
        "_sniff",
        "_splitter",
        "_stopped",
        "_surrogates",
        "_unclosed",
        "_utf8_decoder",
    )

    def __init__(
        self,
        send: Callable[[], Coroutine[Any, Any, httpx2.Response]],
        *,
        on: RequestKind,
        chat: bool,
        now: Callable[[], datetime],
        refused: Callable[[int, bytes], bool] | None = None,
    ) -> None:
        """`refused(status, body)`: returns whether the next request will differ after this refusal."""
        self._send: Callable[[], Coroutine[Any, Any, httpx2.Response]] | None = send  # None once it was sent
        self._on: RequestKind = on
        self._asked_chat = chat
        self._carrier: Carrier = "chat_chunk" if chat else "error_event"
        self._chat = ChatTranslator() if chat else None
        self._now = now
        self._refused = refused
        self._splitter = SseSplitter()
        self._opening: asyncio.Task[httpx2.Response] | None = None
        self._unclosed: AnswerBody | None = None
        self._body: AnswerBody | None = None
        self._sniff = BodySniffer("")
        self._utf8_decoder: Utf8Decoder | None = Utf8Decoder()  # None once the body is known to be UTF-8
        self._kind: BodyKind | None = None  # what the body is, once its first bytes show it
        self._json: list[bytes] = []  # the pieces of a body that is JSON
        self._surrogates: SurrogateJoiner | None = None  # once a character came in two halves
        self._ended = False
        self._stopped = False  # by aclose

    async def read(self) -> list[StreamEvent]:
        """Return the next events, or an empty list at the end. The first call sends the request."""
        body = self._body
        if body is None:
            send, self._send = self._send, None
            if self._ended or self._stopped or send is None:
                return []  # a request that was interrupted while it was sent may have run: it is never sent again
            return await self._open(send)
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
            events = self._digest(body.read_available())
            if not self._ended:
                events += self._block_in(self._remainder())
                events.append(closed_from(error, opened=True))
            return await self._finish(events)

    def trailing(self) -> list[StreamEvent]:
        """Return the events that have already arrived with the terminal event, without waiting."""
        if self._body is None:
            return []
        return [event for event in self._digest(self._body.read_available()) if type(event) is not Closed]

    async def aclose(self) -> None:
        """Close the connection at once; a pending `read()` returns an empty list."""
        self._stopped = self._ended = True
        self._body = None
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        await self._close()

    async def _open(self, send: Callable[[], Coroutine[Any, Any, httpx2.Response]]) -> list[StreamEvent]:
        self._opening = asyncio.ensure_future(send())
        try:
            response = await self._opening
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._stopped and not (task and task.cancelling()):
                return []  # aclose cancelled the request, and not a caller the current task
            raise
        except openai.APIStatusError as error:
            self._ended = True
            answer = error.response
            found = rejected_from(answer.status_code, answer.headers, answer.content, self._now(), on=self._on)
            if self._refused is not None and self._refused(answer.status_code, answer.content):
                found = found._replace(next_differs=True)
            return [found]
        except Exception as error:  # noqa: BLE001 - the room's border: nothing foreign passes
            self._ended = True
            return [closed_from(error, opened=False)]
        self._opening = None  # with the response it would keep the request, prompt and all, as long as the stream lasts
        body = self._unclosed = cast("AnswerBody", response.extensions[BODY])
        if self._stopped:
            await self._close()
            return []
        self._body = body
        self._sniff = BodySniffer(response.headers.get("content-type", "").partition(";")[0].strip().lower())
        return [opened_from(response.status_code, response.headers, resumed=self._on != "create")]

    def _digest(self, chunk: bytes) -> list[StreamEvent]:
        """Return the events that `chunk` completes; sets `_ended` if what follows can't be trusted."""
        if self._utf8_decoder is not None:
            return self._decode(self._utf8_decoder, chunk)
        return self._feed(chunk)

    def _decode(self, decoder: Utf8Decoder, chunk: bytes, *, last: bool = False) -> list[StreamEvent]:
        """Return the events of a body that is, or may still turn out to be, UTF-16 or UTF-32."""
        piece = decoder.feed(chunk, last=last)
        if decoder.wide is False:
            self._utf8_decoder = None
        return self._feed(piece) if piece else []

    def _feed(self, chunk: bytes) -> list[StreamEvent]:
        if self._kind is not BodyKind.EVENTS:
            return self._begin(chunk)
        splitter = self._splitter
        comments = splitter.comments
        try:
            payloads = splitter.feed(chunk)
        except FrameTooLarge as error:
            return self._end_as_bad_json(error)
        if len(payloads) == 1 and self._chat is None and self._surrogates is None:
            try:
                data = parse_frame(payloads[0])
            except ValueError:
                pass  # not JSON, or only half a character
            else:
                return translate(data) if type(data) is dict and "type" in data else self._event(data)
        events: list[StreamEvent] = []
        for payload in payloads:
            try:
                events += self._translate(payload)
            except BadJson as error:
                return [*events, *self._block_in(payload), *self._end_as_bad_json(error)]
        if not events and splitter.comments > comments:
            events.append(Keepalive(None, "comment"))
        return events

    def _begin(self, chunk: bytes) -> list[StreamEvent]:
        """Return the events of a body that is no event stream, or not yet known to be one."""
        if self._kind is None:
            found = self._sniff.feed(chunk)
            if found is None:
                return [Keepalive(None, "padding")] if chunk else []
            self._kind, chunk = found
        if self._kind is BodyKind.EVENTS:
            return self._feed(chunk)
        if self._kind is BodyKind.PAGE:
            self._ended = True
            return [Closed("page")]  # a portal or an edge page under 200
        return self._buffer_json(chunk)

    def _translate(self, payload: bytes) -> list[StreamEvent]:
        try:
            data = parse_frame(payload)
        except ValueError:
            bare = payload.strip()
            if bare.strip(b'"').lower() == _DONE:
                return self._done()
            if bare[:1] not in (b"{", b"["):
                return self._event(bare.decode("utf-8", "replace"))
            if self._surrogates is None:
                self._surrogates = SurrogateJoiner()
            data = parse_surrogates(payload)
        if self._chat is None and self._surrogates is None and type(data) is dict and "type" in data:
            return translate(data)
        return self._event(data)

    def _done(self) -> list[StreamEvent]:
        return self._join_surrogates(self._chat.done()) if self._chat is not None else []

    def _event(self, data: object) -> list[StreamEvent]:
        """Return the events of one value of a stream: an event, a chunk, a response, or a list of them."""
        if type(data) is str:
            return self._done() if data.strip().lower() == "[done]" else [error_in_words(data, self._carrier)]
        values = data if type(data) is list and data else [data]
        return self._join_surrogates([event for value in values for event in self._one(value)])

    def _one(self, data: object) -> list[StreamEvent]:
        """Return the events of one object by its own shape, whichever API was called."""
        shape = shape_of(data)
        if shape is None:
            data = unwrap(data)
            shape = shape_of(data)
        if shape == "chat" or (shape is None and self._chat is not None):
            return self._chunk(data)
        return translate(data)

    def _chunk(self, data: object) -> list[StreamEvent]:
        if self._chat is None:
            self._chat = ChatTranslator()
        events = self._chat.feed(data)
        if self._asked_chat:
            return events
        # a completion can't be polled, so its id must not look like that of a response
        return [event._replace(response_id=None) if type(event) is Created else event for event in events]

    def _join_surrogates(self, events: list[StreamEvent]) -> list[StreamEvent]:
        return events if self._surrogates is None else self._surrogates.mend(events)

    def _end_as_bad_json(self, error: Exception) -> list[StreamEvent]:
        self._ended = True
        return [Closed("bad_json", type(error).__name__)]

    def _buffer_json(self, piece: bytes) -> list[StreamEvent]:
        self._json.append(piece)
        if len(self._json) % 64 == 0 and sum(map(len, self._json)) > _MAX_JSON_BYTES:
            return self._end_as_bad_json(FrameTooLarge())
        return []

    def _last_events(self) -> list[StreamEvent]:
        """Return the events of the rest of the body and of its end."""
        events: list[StreamEvent] = []
        remainder: bytes | None = None
        if self._utf8_decoder is not None:
            events += self._decode(self._utf8_decoder, b"", last=True)
        if self._kind is None:
            self._kind, head = self._sniff.end()
            if not head and (ended := self._ended_empty(self._kind)) is not None:
                return [ended]
            events += self._feed(head)
        try:
            if self._kind is BodyKind.JSON:
                events += self._json_events()
            elif (remainder := self._splitter.close()) is not None:
                # A complete payload without its blank line is an answer too, not half a frame.
                events += self._translate(remainder)
        except BadJson:
            block = self._block_in(remainder or self._remainder())
            return [*events, *block, Closed("bad_json" if self._kind is BodyKind.JSON else "half_frame", "BadJson")]
        if self._chat is not None:
            events += self._join_surrogates(self._chat.done() if self._kind is BodyKind.JSON else self._chat.end())
        if self._kind is BodyKind.JSON and self._on == "create" and not is_answer(events, chat=self._chat is not None):
            return [Closed("not_an_answer")]
        if self._surrogates is not None:
            events += self._surrogates.flush()
        events.append(Closed("clean"))
        return events

    def _remainder(self) -> bytes:
        """Return what has come of a frame or a body whose end has not."""
        return b"".join(self._json) if self._kind is BodyKind.JSON else self._splitter.close() or b""

    def _block_in(self, payload: bytes) -> list[StreamEvent]:
        """Return the block that a frame or a body reports that was cut or is no JSON; nothing else of it counts."""
        data = value_of_cut(payload) if payload else None
        if data is None:
            return []
        events = self._value(data) if self._kind is BodyKind.JSON else self._event(data)
        if self._chat is not None:
            events += self._chat.end()
        return block_among(events)

    def _ended_empty(self, kind: BodyKind) -> Closed | None:
        """Return the end of a body without a byte, or None if it is a resumed stream without news."""
        if kind is BodyKind.JSON or self._on == "poll":
            return Closed("bad_json", "empty")
        return Closed("nothing") if self._on == "create" else None

    def _json_events(self) -> list[StreamEvent]:
        """Return the events of a body that is JSON: one value, or one value a line."""
        body = b"".join(self._json)
        try:
            return self._value(parse(body))
        except BadJson:
            lines = [line for line in body.splitlines() if line.strip()]
            if len(lines) < 2:  # noqa: PLR2004  one line is what could not be read
                raise
        return [event for line in lines for event in self._event(parse(line))]

    def _value(self, data: object) -> list[StreamEvent]:
        data = unwrap(data)
        if type(data) is list:
            return [event for one in data for event in self._event(one)]  # the events of a stream, all at once
        shape = shape_of(data)
        kind = data.get("type") if type(data) is dict else None
        if shape in ("event", "chat") or kind == "error" or (shape is None and self._chat is not None):
            return self._event(data)
        return translate_snapshot(data)

    async def _finish(self, events: list[StreamEvent]) -> list[StreamEvent]:
        self._ended = True
        self._body = None
        await self._close()
        return events

    async def _close(self) -> None:
        body, self._unclosed = self._unclosed, None
        if body is not None:
            with contextlib.suppress(Exception):  # the connection may be broken already
                await body.aclose()
