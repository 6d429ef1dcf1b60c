"""Where a reader of a job's events stands: what is new, what was seen before, what is missing.

Pure. Events are told apart by `seq`, text by its attempt and its offset.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final

from worker.client.models import DELTA, Event
from worker.client.sse import Frame

_TURNS: Final = frozenset({"job.attempt.started", "job.attempt.finished"})


class Gap(Exception):
    """Something between this event and the one before was never heard: ask again from where we stand."""


class Cursor:
    """Reads frames into events, each once and in order.

    `after` and `offset` are what the next connection is asked to go on behind.
    """

    def __init__(self, after: int = 0, offset: int = 0) -> None:
        self.after, self.offset = after, offset
        self.over = False
        self._ends: dict[int | None, int] = {}  # how far each attempt's text was read
        self._trusted = offset > 0  # the caller says where the first text begins

    def take(self, frame: Frame) -> Event | None:
        """What the frame tells that is new; Gap when something before it is missing."""
        event = _read(frame)
        if event is None:
            return None
        if event.type == DELTA:
            return self._text(event)
        if event.seq is None:
            return event  # of a kind that we don't know: nothing to tell it apart by
        if event.seq <= self.after:
            return None
        if event.seq > self.after + 1:
            raise Gap
        self.after = event.seq
        self.over = event.terminal
        if event.type in _TURNS:
            self.offset = 0  # the next text may be another attempt's: ask for all of it, what was read is cut off here
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
            return None  # nothing new says nothing of which attempt writes now: `offset` stays
        self._ends[event.attempt] = self.offset = known + len(fresh)
        return event if start == known else _cut(event, known, fresh)


def _cut(event: Event, offset: int, delta: str) -> Event:
    return Event.model_validate({**event.raw, "data": {**event.data, "offset": offset, "delta": delta}})


def _read(frame: Frame) -> Event | None:
    """The event in a frame; None for one that holds no JSON object of an event's shape."""
    with suppress(ValueError):
        body: Any = json.loads(frame.data)
        if not isinstance(body, dict):
            return None
        if "delta" in body:
            body = {"data": body}  # a delta may be its data alone
        return Event.model_validate({"type": frame.event, **body})
    return None
