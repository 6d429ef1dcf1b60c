"""The inbox of one run: everything that happens to a run while it waits arrives here, as one typed message.

Readers, leases, the API (by way of Redis) and the process itself put messages in; only `JobRun` takes them out, so
nothing in a run races with itself.
"""

from __future__ import annotations

import asyncio
import enum
import math
from dataclasses import dataclass
from typing import Final

from worker.store.provider.safety_notices import RESPONSE_ENDED


class Control(enum.Enum):
    """A request to the run as a whole."""

    CANCEL = "cancel"
    """The app has asked to cancel the job; the request is on record."""
    OFFER = "offer"
    """The app has accepted the offer of a faster model; the acceptance is on record."""
    LEASE_LOST = "LOST"
    """Redis has given the lease to another worker."""
    DRAIN = "drain"
    """This process shuts down: hand the job over where that costs nothing."""
    INTERRUPT = "interrupt"
    """The time to drain is over: stop now."""
    READER_CHANGED = "look"
    """A reader has stopped, or its next tick came nearer."""
    UNKNOWN = "?"
    """A control message that this version does not know."""


@dataclass(frozen=True, slots=True)
class SignalsReady:
    """The reader of attempt `number` has signals to take."""

    number: int


@dataclass(frozen=True, slots=True)
class ResponseEnded:
    """The provider's webhook says that this response has ended."""

    response_id: str


Message = SignalsReady | ResponseEnded | Control

_FROM_REDIS: Final = {one.value: one for one in (Control.CANCEL, Control.OFFER, Control.LEASE_LOST)}


def parse_control(text: str) -> Message:
    """Return the message behind the text that the API left for the job's holder, or that a renewal answered."""
    if text.startswith(RESPONSE_ENDED):
        return ResponseEnded(text.removeprefix(RESPONSE_ENDED).strip())
    return _FROM_REDIS.get(text, Control.UNKNOWN)


class Inbox:
    """The messages of one run, oldest first."""

    __slots__ = ("_arrived", "_messages")

    def __init__(self) -> None:
        # a queue of asyncio costs 2.5 kB, and every waiting job has an inbox
        self._messages: list[Message] = []
        self._arrived: asyncio.Future[None] | None = None

    def put(self, message: Message) -> None:
        """Add a message; never blocks."""
        self._messages.append(message)
        _wake(self._arrived)

    async def get(self, timeout: float) -> Message | None:  # noqa: ASYNC109  its end is an answer, no error
        """Return the next message, or None if none comes within `timeout` seconds (inf: wait for ever)."""
        if not self._messages:
            loop = asyncio.get_running_loop()
            self._arrived = arrived = loop.create_future()
            timer = loop.call_later(max(0.0, timeout), _wake, arrived) if math.isfinite(timeout) else None
            try:
                await arrived
            finally:
                self._arrived = None
                if timer is not None:
                    timer.cancel()
        return self._messages.pop(0) if self._messages else None

    def drain(self) -> list[Message]:
        """Return all messages that are here now."""
        messages, self._messages = self._messages, []
        return messages


def _wake(arrived: asyncio.Future[None] | None) -> None:
    if arrived is not None and not arrived.done():
        arrived.set_result(None)
