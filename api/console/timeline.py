"""Lays out the life of a job as lanes of bars over time. Pure.

Every bar and mark is a row of the table beside the picture, too. No length is negative and no bar leaves the picture,
also when the clocks of API, worker and browser differ: an end before its start is its start, and what is open ends at
the newest time that is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from api.console.formats import as_time, duration, exact, words
from worker.jobs import events as ev
from worker.jobs.view_schema import JobView

Kind = Literal[
    "wait",
    "backoff",
    "hold",
    "attempt",
    "signalled",
    "suspected",
    "offer",
    "mark",
    "block",
    "substitution",
    "delivered",
    "undelivered",
]
_MAX_WAIT_SHARE: Final = 0.6
"""How long the wait before the first call may be drawn, in shares of what follows; a longer one is cut."""
_MAX_TAIL_SHARE: Final = 0.5
"""How much later than the job's end its webhooks may be drawn, in shares of the job; later ones stand there, too."""
_STEPS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
_MAX_TICKS: Final = 6
_MAX_BARS: Final = 600
"""Of the whole picture: rendering it must not keep the event loop busy."""
_WAITS: Final[dict[str, Kind]] = {"hold": "hold", "backoff": "backoff"}
_END_WAIT: Final = frozenset({ev.Released.TYPE, ev.Started.TYPE, ev.Rescued.TYPE, ev.Scheduled.TYPE})
_TERMINAL: Final = frozenset(fact.TYPE for fact in ev.TERMINAL_FACTS)
_MARKS: Final = {
    ev.Interrupted.TYPE: "worker shut down, handed over",
    ev.Rescued.TYPE: "worker was lost, another took over",
    ev.CancelRequested.TYPE: "cancellation requested",
    ev.AccountFlagged.TYPE: "account flagged by the provider",
    ev.DraftReady.TYPE: "draft shown",
    ev.DraftWithdrawn.TYPE: "draft withdrawn",
    ev.OfferAccepted.TYPE: "offer accepted",
    ev.ContentRemoved.TYPE: "content removed",
}
_OPEN: Final = "still running"


@dataclass(slots=True)
class Bar:
    """A bar from `start` to `end`, or a mark if they are the same; `open`: it has not ended.

    `x` and `width` are percent of the picture.
    """

    kind: Kind
    title: str
    start: datetime
    end: datetime
    detail: str = ""
    open: bool = False
    x: float = 0.0
    width: float = 0.0

    @property
    def seconds(self) -> float:
        """Return its length."""
        return (self.end - self.start).total_seconds()

    @property
    def is_mark(self) -> bool:
        """Return whether it is a point of time."""
        return self.start == self.end and not self.open


@dataclass(frozen=True, slots=True)
class Lane:
    """Bars that stand in one line."""

    name: str
    bars: list[Bar]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of the axis: percent of the picture, and the time since the job was accepted."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The picture. `cut`: seconds at its beginning that are not shown, `tail`: at its end, what is later stands at the
    edge; `left_out`: bars beyond the most it shows.
    """

    lanes: list[Lane]
    ticks: list[Tick]
    cut: float
    tail: float
    left_out: int

    @property
    def bars(self) -> list[Bar]:
        """Return all bars by their start: the rows of the table."""
        return sorted((bar for lane in self.lanes for bar in lane.bars), key=lambda bar: (bar.start, bar.end))


def timeline_of(
    job: JobView, events: Sequence[Mapping[str, Any]], messages: Sequence[Mapping[str, Any]], now: datetime
) -> Timeline:
    """Return the timeline of a job: `events` in order, `messages` of its webhooks with their deliveries."""
    created = job["created_at"]
    lanes = [Lane("Job", _waits(job, events, now) + _job_marks(events))]
    for attempt in job["attempts"]:
        served = attempt["served_model"]
        model = attempt["model"] + (f" (served by {served})" if served not in (None, attempt["model"]) else "")
        lanes.append(Lane(f"{attempt['number']} {attempt['purpose']}: {model}", [_attempt_bar(attempt, now)]))
        lanes[-1].bars.extend(_attempt_marks(attempt))
        checks = [_check_bar(check, now) for check in job["safety"]["checks"] if check["attempt"] == attempt["number"]]
        if checks:
            lanes.append(Lane("safety checks", checks))
    lanes += [_offers(job, events, now), Lane("webhooks", _tries(messages))]
    return _place([lane for lane in lanes if lane.bars], created, job["finished_at"])


def _bar(kind: Kind, title: str, start: Any, end: Any, now: datetime, detail: str = "") -> Bar:
    began = as_time(start)
    ended = as_time(end) if end is not None else max(now, began)
    return Bar(kind, title, began, max(began, ended), detail, end is None)


def _mark(kind: Kind, title: str, at: Any, detail: str = "") -> Bar:
    return Bar(kind, title, as_time(at), as_time(at), detail)


def _waits(job: JobView, events: Sequence[Mapping[str, Any]], now: datetime) -> list[Bar]:
    """Return the times in which the job waited: in the queue, for a time, for a hold, between attempts."""
    out, title, detail, waiting = list[Bar](), "in the queue", "", True
    since: datetime | str = job["created_at"]
    kind: Kind = "wait"
    for event in events:
        if event["type"] in _END_WAIT | _TERMINAL and waiting:
            if as_time(event["at"]) > as_time(since):
                out.append(_bar(kind, title, since, event["at"], now, detail))
            waiting = False
        if event["type"] == ev.Scheduled.TYPE:
            data = event["data"]
            waiting, since, kind = True, event["at"], _WAITS.get(data["reason"], "wait")
            title = {"hold": "held", "backoff": "backoff before the next attempt"}.get(data["reason"], "not before")
            until = f"until {data['until']}" if data.get("until") else ""
            detail = ", ".join(part for part in (data.get("hold_reason") and words(data["hold_reason"]), until) if part)
        elif event["type"] == ev.Released.TYPE:
            waiting, since, kind, title, detail = True, event["at"], "wait", "in the queue", "released early"
    if waiting and job["finished_at"] is None:
        out.append(_bar(kind, title, since, None, now, detail))
    return out


def _job_marks(events: Iterable[Mapping[str, Any]]) -> list[Bar]:
    out = list[Bar]()
    for event in events:
        kind, data = event["type"], event["data"]
        if kind == ev.ModelSubstituted.TYPE:
            disclosed = data["disclosure"]
            detail = f"{disclosed['requested_model']} to {disclosed['served_model']}: {words(disclosed['reason'])}"
            out.append(_mark("substitution", "model substituted", event["at"], detail))
        elif kind in _TERMINAL:
            kind_of_end: Kind = "block" if kind == ev.Blocked.TYPE else "mark"
            out.append(_mark(kind_of_end, words(kind.removeprefix("job.")), event["at"]))
        elif kind in _MARKS:
            out.append(_mark("mark", _MARKS[kind], event["at"], words(data.get("because") or "")))
    return out


def _attempt_bar(attempt: Mapping[str, Any], now: datetime) -> Bar:
    outcome = words(attempt["outcome"]) if attempt["outcome"] else _OPEN
    parts = [outcome, attempt["because"] and words(attempt["because"])]
    if attempt["http_status"]:
        parts.append(f"HTTP {attempt['http_status']}")
    if attempt["resumed"]:
        parts.append(f"resumed {attempt['resumed']} times")
    title = f"attempt {attempt['number']}: {attempt['model']}"
    kind: Kind = "block" if attempt["outcome"] == "blocked" else "attempt"
    detail = ", ".join(part for part in parts if part)
    return _bar(kind, title, attempt["started_at"], attempt["finished_at"], now, detail)


def _attempt_marks(attempt: Mapping[str, Any]) -> list[Bar]:
    named = (("first_event_at", "first event"), ("first_output_at", "first output"))
    return [
        _mark("mark", f"attempt {attempt['number']}: {title}", attempt[name]) for name, title in named if attempt[name]
    ]


def _check_bar(check: Mapping[str, Any], now: datetime) -> Bar:
    kind: Kind = "signalled" if check["evidence"] == "signalled" else "suspected"
    parts = [words(one) for one in (*check["use_cases"], *check["reasons"])]
    if check["retry_model"]:
        parts.append(f"the provider offers {check['retry_model']}")
    parts.append(f"ended by {words(check['ended_by'])}" if check["ended_by"] else _OPEN)
    title = f"safety check, {kind}"
    return _bar(kind, title, check["started_at"], check["ended_at"], now, ", ".join(parts))


def _offers(job: JobView, events: Sequence[Mapping[str, Any]], now: datetime) -> Lane:
    """Return the offers of a faster model, each from when it was made until it was accepted or expired.

    The lane's name says until when one is open: that is later than the picture.
    """
    out, opened, name = list[Bar](), None, "offers"
    for event in events:
        if event["type"] == ev.OfferMade.TYPE:
            opened = event
        elif event["type"] in (ev.OfferAccepted.TYPE, ev.OfferExpired.TYPE) and opened is not None:
            out.append(_offer(opened, event["at"], words(event["type"].removeprefix("job.offer.")), now))
            opened = None
    if opened is not None:
        open_still = job["offer"] is not None
        out.append(_offer(opened, None if open_still else job["finished_at"], "open" if open_still else "over", now))
        if open_still and (until := opened["data"].get("until")):
            name = f"offer, until {as_time(until):%H:%M:%S} UTC"
    return Lane(name, out)


def _offer(opened: Mapping[str, Any], end: Any, state: str, now: datetime) -> Bar:
    until = opened["data"].get("until")
    detail = f"{state}, deadline {exact(until)}" if until else state
    return _bar("offer", f"offer of {opened['data']['model']}", opened["at"], end, now, detail)


def _tries(messages: Iterable[Mapping[str, Any]]) -> list[Bar]:
    out = list[Bar]()
    for message in messages:
        for one in message["deliveries"]:
            at, status = one["at"], one["status_code"]
            good = isinstance(status, int) and 200 <= status < 300  # noqa: PLR2004  success of HTTP
            answer = f"HTTP {status}" if status else words(one["error"] or "no answer")
            out.append(_mark("delivered" if good else "undelivered", f"webhook {message['type']}", at, answer))
    return out


def _place(lanes: list[Lane], created: datetime, finished: datetime | None) -> Timeline:
    """Return the lanes with the places of their bars, and the axis."""
    total = sum(len(lane.bars) for lane in lanes)
    room = _MAX_BARS
    for number, lane in enumerate(sorted(lanes, key=lambda lane: len(lane.bars))):  # short lanes stay whole
        most = max(1, room // (len(lanes) - number))
        lane.bars[:] = sorted(sorted(lane.bars, key=lambda bar: bar.end)[-most:], key=lambda bar: bar.start)
        room -= len(lane.bars)
    left_out = total - sum(len(lane.bars) for lane in lanes)
    bars = [bar for lane in lanes for bar in lane.bars]
    start = min([created, *(bar.start for bar in bars)])
    end = max([start + timedelta(milliseconds=100), *(bar.end for bar in bars)])
    calls = [bar.start for lane in lanes for bar in lane.bars if bar.kind in {"attempt", "block"} and not bar.is_mark]
    shown = start
    if calls and min(calls) > start:
        shown = max(start, min(calls) - _MAX_WAIT_SHARE * (end - min(calls)) - timedelta(milliseconds=100))
    last = end
    if finished is not None:
        body = max([shown, finished, *(bar.end for bar in bars if not bar.is_mark or bar.start <= finished)])
        end = min(end, body + _MAX_TAIL_SHARE * (body - shown) + timedelta(milliseconds=100))
    whole = (end - shown).total_seconds()
    for bar in bars:
        first, over = (min(whole, max(0.0, (at - shown).total_seconds())) for at in (bar.start, bar.end))
        bar.x = round(100 * first / whole, 3)
        bar.width = round(100 * (over - first) / whole, 3)
    cut, tail = (shown - start).total_seconds(), (last - end).total_seconds()
    return Timeline(lanes, _ticks(whole, (shown - created).total_seconds()), cut, tail, left_out)


def _ticks(whole: float, offset: float) -> list[Tick]:
    """Return up to _MAX_TICKS marks at round times after the job was accepted."""
    step = next((one for one in _STEPS if whole / one <= _MAX_TICKS), None)
    step = step or 86_400 * (int(whole / 86_400 / _MAX_TICKS) + 1)
    number = int(offset // step)
    out = list[Tick]()
    while (at := number * step - offset) <= whole:
        if at >= 0:
            out.append(Tick(round(100 * at / whole, 3), duration(number * step) if number else "0"))
        number += 1
    return out
