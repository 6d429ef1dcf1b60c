"""The timeline of a job: every bar within the picture, none of a negative length, whatever the clocks say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, strategies as st

from api.console.timeline import timeline_of

START = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def job(attempts=(), checks=(), finished_at=None, offer=None):
    return {
        "created_at": START,
        "finished_at": finished_at,
        "attempts": list(attempts),
        "safety": {"checks": list(checks)},
        "offer": offer,
    }


def attempt(number: int, start: float, end: float | None, outcome: str | None = "completed", **more):
    return {
        "number": number,
        "model": "sol",
        "served_model": None,
        "purpose": "original",
        "outcome": outcome if end is not None else None,
        "because": None,
        "http_status": 200,
        "resumed": 0,
        "started_at": at(start),
        "finished_at": None if end is None else at(end),
        "first_event_at": None,
        "first_output_at": None,
        **more,
    }


def check(number: int, start: float, end: float | None, evidence: str = "signalled"):
    return {
        "attempt": number,
        "evidence": evidence,
        "started_at": at(start),
        "ended_at": None if end is None else at(end),
        "use_cases": ("cyber",),
        "reasons": (),
        "retry_model": None,
        "ended_by": None if end is None else "output",
    }


def event(kind: str, seconds: float, **data):
    return {"type": kind, "at": at(seconds).isoformat(), "data": data, "attempt": None}


def bars(timeline, kind: str):
    return [bar for bar in timeline.bars if bar.kind == kind]


def test_attempts_checks_waits_offers_and_tries_are_bars():
    events = [
        event("job.queued", 0),
        event("job.started", 2, worker="w", generation=1),
        event("job.offer.made", 6, model="luna", until=at(60).isoformat()),
        event("job.offer.accepted", 8, model="luna", by="key"),
        event("job.completed", 10),
    ]
    tries = [
        {"at": at(11).isoformat(), "status_code": 200, "error": None},
        {"at": at(10.5).isoformat(), "status_code": None, "error": "timeout"},
    ]
    messages = [{"type": "job.completed", "deliveries": tries}]
    shown = timeline_of(
        job([attempt(1, 2, 10)], [check(1, 3, 7), check(1, 8, 9, "suspected")], at(10)), events, messages, at(20)
    )
    assert [bar.seconds for bar in bars(shown, "wait")] == [2]
    assert [(bar.seconds, bar.open) for bar in bars(shown, "attempt")] == [(8, False)]
    assert [bar.seconds for bar in bars(shown, "signalled")] == [4]
    assert [bar.seconds for bar in bars(shown, "suspected")] == [1]
    assert [(bar.seconds, "deadline" in bar.detail) for bar in bars(shown, "offer")] == [(2, True)]
    assert len(bars(shown, "delivered")) == len(bars(shown, "undelivered")) == 1
    assert [lane.name for lane in shown.lanes] == ["Job", "1 original: sol", "safety checks", "offers", "webhooks"]


def test_backoff_and_holds_are_bars_of_their_own():
    events = [
        event("job.queued", 0),
        event("job.started", 1),
        event("job.scheduled", 3, reason="backoff", until=at(9).isoformat()),
        event("job.started", 9),
        event("job.scheduled", 12, reason="hold", hold_reason="quota_exhausted"),
        event("job.released", 30),
    ]
    shown = timeline_of(job([attempt(1, 1, 3, "overloaded")]), events, [], at(40))
    assert [bar.seconds for bar in bars(shown, "backoff")] == [6]
    assert [(bar.seconds, bar.detail) for bar in bars(shown, "hold")] == [(18, "quota exhausted")]
    assert [(bar.seconds, bar.open) for bar in bars(shown, "wait")] == [(1, False), (10, True)]


def test_a_long_wait_is_cut_and_the_call_stays_to_be_seen():
    events = [event("job.queued", 0), event("job.started", 86_400)]
    shown = timeline_of(job([attempt(1, 86_400, 86_410)], finished_at=at(86_410)), events, [], at(90_000))
    (call,) = bars(shown, "attempt")
    assert call.width > 50
    assert shown.cut > 80_000
    assert [bar.seconds for bar in bars(shown, "wait")] == [86_400]


def test_webhooks_that_are_tried_for_days_leave_the_job_to_be_seen():
    events = [event("job.queued", 0), event("job.started", 0.1), event("job.completed", 4)]
    tries = [{"at": at(seconds).isoformat(), "status_code": 500, "error": None} for seconds in (5, 300, 90_000)]
    messages = [{"type": "job.completed", "deliveries": tries}]
    shown = timeline_of(job([attempt(1, 0.1, 4)], finished_at=at(4)), events, messages, at(90_001))
    (call,) = bars(shown, "attempt")
    assert call.width > 50
    places = [bar.x for bar in bars(shown, "undelivered")]
    assert call.x + call.width < places[0] < 100, "one soon after the end stands where it belongs"
    assert places[1:] == [100, 100]
    assert shown.tail > 80_000


def test_an_open_offer_says_until_when():
    made = event("job.offer.made", 6, model="luna", until=at(3_600).isoformat())
    offer = {"model": "luna", "since": at(6), "until": at(3_600)}
    shown = timeline_of(job([attempt(1, 0, None)], offer=offer), [made], [], at(20))
    assert shown.lanes[-1].name == "offer, until 10:00:00 UTC"
    assert bars(shown, "offer")[0].detail == "open, deadline 2026-11-30 10:00:00.000 UTC"


def test_a_job_with_more_than_a_page_holds_shows_its_newest():
    attempts = [attempt(number, 100 * number, 100 * number + 99) for number in range(1, 51)]
    checks = [check(number, 100 * number + one, 100 * number + one + 1) for number in range(1, 51) for one in range(60)]
    shown = timeline_of(job(attempts, checks), [], [], at(6_000))
    assert 500 < len(shown.bars) <= 600
    assert shown.left_out == 50 + 3_000 + 1 - len(shown.bars)
    assert max(bar.end for bar in shown.bars) == at(6_000)
    assert any(lane.name.startswith("50 ") for lane in shown.lanes)


TIMES = st.floats(-1e5, 1e5, allow_nan=False)


@given(
    attempts=st.lists(st.tuples(TIMES, st.none() | TIMES), max_size=6),
    checks=st.lists(st.tuples(TIMES, st.none() | TIMES, st.sampled_from(["signalled", "suspected"])), max_size=6),
    others=st.lists(st.tuples(st.sampled_from(["job.started", "job.scheduled", "job.released", "job.rescued"]), TIMES)),
    finished=st.none() | TIMES,
    tries=st.lists(TIMES, max_size=3),
    now=TIMES,
)
def test_nothing_is_negative_or_outside(attempts, checks, others, finished, tries, now):
    view = job(
        [attempt(n, *times) for n, times in enumerate(attempts, 1)],
        [check(1, *one) for one in checks],
        None if finished is None else at(finished),
    )
    events = [event(kind, seconds, reason="backoff") for kind, seconds in others]
    sent = [{"at": at(seconds).isoformat(), "status_code": 200, "error": None} for seconds in tries]
    shown = timeline_of(view, events, [{"type": "job.completed", "deliveries": sent}], at(now))
    assert all(bar.seconds >= 0 for bar in shown.bars)
    assert all(bar.x >= 0 and bar.width >= 0 and bar.x + bar.width <= 100.01 for bar in shown.bars)
    assert all(0 <= tick.x <= 100 for tick in shown.ticks)
    assert len(shown.ticks) <= 8
    assert shown.cut >= 0
    assert shown.tail >= 0
    starts = [bar.start for bar in shown.bars]
    assert starts == sorted(starts)
