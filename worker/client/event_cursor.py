"""The position of a reader in a job's events: which are new, which were read before, where some are missing.

Pure. Events are identified by `seq`, text by its attempt and its offset.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final

from .models import DELTA, Event
from .sse import Frame

_ATTEMPT_EVENTS: Final = frozenset({"job.attempt.started", "job.attempt.finished"})


class Gap(Exception):
    """Events or text before this event are missing: reconnect from the cursor's position."""


class Cursor:
    """Converts frames to events, each once and in order.

    `after` and `offset` are the position from which the next connection continues.
    """

    def __init__(self, after: int = 0, offset: int = 0) -> None:
        self.after, self.offset = after, offset
        self.over = False
        self._ends: dict[int | None, int] = {}  # how far each attempt's text was read
        self._trusted = offset > 0  # the caller says where the first text begins

    def take(self, frame: Frame) -> Event | None:
        """Return the new event in the frame, or None if it has none. Raise Gap if something before it is missing."""
        event = _read(frame)
        if event is None:
            return None
        if event.type == DELTA:
            return self._text(event)
        if event.seq is None:
            return event  # an unknown kind without a number: it can't be recognised when it comes again
        if event.seq <= self.after:
            return None
        if event.seq > self.after + 1:
            raise Gap
        self.after = event.seq
        self.over = event.terminal
        if event.type in _ATTEMPT_EVENTS:
            self.offset = 0  # the next text may be another attempt's: request all of it, `_text` drops what was read
        return event

    def _text(self, event: Event) -> Event | None:
        text, start = event.delta or "", event.offset
        known = self._ends.get(event.attempt, start if self._trusted else 0)
        if start > known:
            self.offset = known
            raise Gap
        self._trusted = False
        fresh = text[known - start :]
        if not fresh:
            return None  # text read before doesn't show which attempt is writing now: `offset` stays
        self._ends[event.attempt] = self.offset = known + len(fresh)
        return event if start == known else _with_delta(event, known, fresh)


def _with_delta(event: Event, offset: int, delta: str) -> Event:
    return Event.model_validate({**event.raw, "data": {**event.data, "offset": offset, "delta": delta}})


def _read(frame: Frame) -> Event | None:
    """Return the event in a frame, or None if the frame is not JSON of an event's shape."""
    with suppress(ValueError):
        body: Any = json.loads(frame.data)
        if not isinstance(body, dict):
            return None
        if "delta" in body:
            body = {"data": body}  # a delta may be its data alone
        return Event.model_validate({"type": frame.event, **body})
    return None
