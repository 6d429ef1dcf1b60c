"""How the reading of a response ends: what follows its last word, and what of it still counts.

A failure often comes in two events, the vague one first: `response.failed` with `error: null`, then an error with the
code of a block, or the code only in the response that a GET shows (wire.md section 0.7). So nothing is decided by a
failure that is no block before its connection has ended or a moment has passed; and the response of one that names no
cause is looked at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from worker.safety.codes import KNOWN, SUSPECT, weight
from worker.safety.stream import Closed, Keepalive, ProviderProblem, Rejected, StreamError, StreamEvent, Terminal
from worker.upstream.answer import UpstreamAnswer

DRAIN_SECONDS: Final = 2.0
"""How long a failure is listened to, and how long the look at its response may take."""


async def last_batch(
    events: list[StreamEvent], answer: UpstreamAnswer, look: Callable[[], UpstreamAnswer] | None, seconds: float
) -> list[StreamEvent]:
    """Return the last events of a response, of which one must be the terminal event; closes `answer`.

    `look` asks for the response once more, where it can be asked for. What tells more than the terminal event is put
    before it, what else came after it only proves life.
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


def _is_unexplained(terminal: Terminal, after: list[StreamEvent]) -> bool:
    """Whether the provider has not said yet why the response failed, or was cut short."""
    return _weighs_less(terminal, after, KNOWN)


def _may_be_block(terminal: Terminal, after: list[StreamEvent]) -> bool:
    """Whether the response failed for what is no block so far: the code of a block may still come."""
    return _weighs_less(terminal, after, SUSPECT)


def _weighs_less(terminal: Terminal, after: list[StreamEvent], than: int) -> bool:
    unexplained = terminal.status == "failed" or (terminal.status == "incomplete" and not terminal.incomplete_reason)
    return unexplained and max(map(_weight, (terminal, *after))) < than


async def _read_rest(
    answer: UpstreamAnswer, seconds: float, terminal: Terminal, before: list[StreamEvent]
) -> list[StreamEvent]:
    """What still comes over a connection, until it ends, says why, or has been listened to for long enough."""
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
    """The events as they are passed on: what tells more, the last word, signs of life.

    A response that was delivered whole is taken back by nothing but a block.
    """
    least = max(_weight(terminal), SUSPECT - 1 if terminal.status in ("completed", "cancelled") else 0)
    told: list[StreamEvent] = []
    late: list[StreamEvent] = []
    for event in after:
        if _weight(event) <= least:
            late += [] if isinstance(event, Closed | Rejected) else [_as_keepalive(event)]
        elif isinstance(event, Terminal) and terminal.status != "completed":
            terminal = event._replace(sequence=terminal.sequence, usage=event.usage or terminal.usage)
            least = _weight(event)
        else:
            told.append(_as_stream_error(event))
    return [*told, terminal, *late]


def _as_stream_error(event: StreamEvent) -> StreamError:
    """The same as an error event; without a number, which would be one after the terminal event's."""
    said = event.problem if isinstance(event, StreamError | Rejected | Terminal) else None
    problem = said or ProviderProblem(None, None)
    if isinstance(event, Terminal) and weight(problem) < _weight(event):
        problem = problem._replace(code=event.incomplete_reason)
    return StreamError(None, problem, event.carrier if isinstance(event, StreamError | Terminal) else "error_event")


def _weight(event: StreamEvent) -> int:
    """How much an event tells of an error."""
    if isinstance(event, Terminal):
        return weight(event.problem, event.incomplete_reason)
    return weight(event.problem) if isinstance(event, StreamError | Rejected) else 0


def _as_keepalive(event: StreamEvent) -> Keepalive:
    """What comes after the terminal event proves life and says nothing more."""
    return Keepalive(getattr(event, "sequence", None), event.type if type(event) is Keepalive else type(event).__name__)
