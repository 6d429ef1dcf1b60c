"""Reads the end of a response: collects what follows the terminal event and decides what of it counts.

A failure often comes in two events, the vague one first: `response.failed` with `error: null`, then an error with the
code of a block, or the code only in the response that a GET shows (wire.md section 0.7). So a failure that is no block
is final only when the connection has ended or a moment has passed; and if it names no cause, the response is polled
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from worker.safety.codes import KNOWN, SUSPECT, weight
from worker.safety.stream import Closed, Keepalive, ProviderProblem, Rejected, StreamError, StreamEvent, Terminal
from worker.upstream.answer import UpstreamAnswer

DRAIN_SECONDS: Final = 2.0
"""How long to read on after a failure, and how long the poll of its response may take."""
BLOCK_SECONDS: Final = 0.3
"""How long to read on after the code of a block, for the terminal event with the usage."""


async def last_batch(
    events: list[StreamEvent], answer: UpstreamAnswer, look: Callable[[], UpstreamAnswer] | None, seconds: float
) -> list[StreamEvent]:
    """Return the last events of a response, of which one must be the terminal event; closes `answer`.

    `look` polls the response once more, if that is possible. Events that tell more than the terminal event are moved
    before it; other late events become keepalives.
    """
    at, terminal = next((at, event) for at, event in enumerate(events) if isinstance(event, Terminal))
    after = events[at + 1 :] + answer.trailing()
    if _may_be_block(terminal, after):
        after += await _read_rest(answer, seconds, terminal, after)
    await answer.aclose()
    if look is not None and terminal.status == "failed" and _is_unexplained(terminal, after):
        snapshot = look()
        after += await _read_rest(snapshot, seconds, terminal, after)
        await snapshot.aclose()
    return events[:at] + _ordered(terminal, after)


async def rest_after_block(answer: UpstreamAnswer, seconds: float) -> list[StreamEvent]:
    """Return what still comes over this connection after the code of a block, up to the end; closes `answer`.

    The terminal event has the usage. The block is known without it, so it is awaited for a moment only and over no
    other connection: a worker that dies before the block is on record would have the prompt sent again.
    """
    events: list[StreamEvent] = []
    try:
        async with asyncio.timeout(seconds):
            while batch := await answer.read():
                events += batch
                if any(isinstance(event, Terminal | Rejected | Closed) for event in batch):
                    break
    except TimeoutError:
        pass
    await answer.aclose()
    return events


def _is_unexplained(terminal: Terminal, after: list[StreamEvent]) -> bool:
    """Return whether the provider has not reported yet why the response failed or was cut short."""
    return _weighs_less(terminal, after, KNOWN)


def _may_be_block(terminal: Terminal, after: list[StreamEvent]) -> bool:
    """Return whether the response failed, and no block was reported yet: its code may still come."""
    return _weighs_less(terminal, after, SUSPECT)


def _weighs_less(terminal: Terminal, after: list[StreamEvent], than: int) -> bool:
    unexplained = terminal.status == "failed" or (terminal.status == "incomplete" and not terminal.incomplete_reason)
    return unexplained and max(map(_weight, (terminal, *after))) < than


async def _read_rest(
    answer: UpstreamAnswer, seconds: float, terminal: Terminal, before: list[StreamEvent]
) -> list[StreamEvent]:
    """Return what still comes over a connection, until it ends, gives the cause, or the time is over."""
    events: list[StreamEvent] = []
    try:
        async with asyncio.timeout(seconds):
            while batch := await answer.read():
                events += batch
                if type(batch[-1]) is Closed or not _may_be_block(terminal, before + events):
                    break
    except TimeoutError:
        pass
    return events


def _ordered(terminal: Terminal, after: list[StreamEvent]) -> list[StreamEvent]:
    """Return the events in order: those that tell more, the terminal event, keepalives.

    Only a block overrides a response that was delivered completely.
    """
    threshold = max(_weight(terminal), SUSPECT - 1 if terminal.status in ("completed", "cancelled") else 0)
    telling: list[StreamEvent] = []
    late: list[StreamEvent] = []
    for event in after:
        if _weight(event) <= threshold:
            late += [] if isinstance(event, Closed | Rejected) else [_as_keepalive(event)]
        elif isinstance(event, Terminal) and terminal.status != "completed":
            terminal = event._replace(sequence=terminal.sequence, usage=event.usage or terminal.usage)
            threshold = _weight(event)
        else:
            telling.append(_as_stream_error(event))
    return [*telling, terminal, *late]


def _as_stream_error(event: StreamEvent) -> StreamError:
    """Return the event as an error event, without its sequence number, which is after the terminal event's."""
    reported = event.problem if isinstance(event, StreamError | Rejected | Terminal) else None
    problem = reported or ProviderProblem(None, None)
    if isinstance(event, Terminal) and weight(problem) < _weight(event):
        problem = problem._replace(code=event.incomplete_reason)
    return StreamError(None, problem, event.carrier if isinstance(event, StreamError | Terminal) else "error_event")


def _weight(event: StreamEvent) -> int:
    """Return how much an event tells of an error."""
    if isinstance(event, Terminal):
        return weight(event.problem, event.incomplete_reason)
    return weight(event.problem) if isinstance(event, StreamError | Rejected) else 0


def _as_keepalive(event: StreamEvent) -> Keepalive:
    """Return a late event as a keepalive."""
    return Keepalive(getattr(event, "sequence", None), event.type if type(event) is Keepalive else type(event).__name__)
