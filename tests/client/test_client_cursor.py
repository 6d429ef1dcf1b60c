"""However often a stream breaks, and wherever, its reader is told each event once, in order, and all of the text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from breaking_proxy import numbers, text
from hypothesis import given, strategies as st

from worker.client.event_cursor import Cursor, Gap
from worker.client.models import DELTA, Event
from worker.client.sse import Frame


def numbered(seq: int, kind: str, attempt: int | None = None, **data: Any) -> Frame:
    body = {"seq": seq, "type": kind, "at": "2026-01-01T00:00:00Z", "job_id": "job_1", "attempt": attempt, "data": data}
    return Frame(kind, json.dumps(body), str(seq))


def delta(attempt: int | None, offset: int, words: str) -> Frame:
    body = {"type": DELTA, "job_id": "job_1", "attempt": attempt, "data": {"offset": offset, "delta": words}}
    return Frame(DELTA, json.dumps(body), "")


def life(texts: list[str]) -> list[Frame | tuple[int, str]]:
    """A job whose attempts write these texts: numbered frames, and single characters of text."""
    out: list[Any] = [numbered(1, "job.queued"), numbered(2, "job.started")]
    for attempt, words in enumerate(texts, 1):
        out.append(numbered(len(out_numbered(out)) + 1, "job.attempt.started", attempt, purpose="retry"))
        out += [(attempt, letter) for letter in words]
        out.append(numbered(len(out_numbered(out)) + 1, "job.attempt.finished", attempt, outcome="stream_cut"))
    return [*out, numbered(len(out_numbered(out)) + 1, "job.completed", len(texts))]


def out_numbered(out: list[Any]) -> list[Frame]:
    return [one for one in out if isinstance(one, Frame)]


def served(events: list[Any], upto: int, after: int, offset: int, cuts: list[int]) -> list[Frame]:
    """What the API sends of the first `upto` things that happened: `offset` counts for the attempt of then."""
    frames: list[Frame] = []
    then, now, seen = None, None, 0
    pos: dict[int, int] = {}
    words: dict[int, str] = {}
    for one in events[:upto]:
        if isinstance(one, Frame):
            body = json.loads(one.data)
            seen = body["seq"]
            if body["type"] == "job.attempt.started":
                now = body["attempt"]
            if now in words and words[now][pos[now] :]:  # what was not sent yet goes before the next event
                frames.append(delta(now, pos[now], words[now][pos[now] :]))
                pos[now] = len(words[now])
            if seen <= after:
                then = now
            else:
                frames.append(one)
            continue
        attempt, letter = one
        start = offset if attempt == then else 0
        words[attempt] = words.get(attempt, "") + letter
        pos.setdefault(attempt, start)
        ready = words[attempt][pos[attempt] :]
        if ready and len(words[attempt]) % (cuts[attempt % len(cuts)] or 1) == 0:
            frames.append(delta(attempt, pos[attempt], ready))
            pos[attempt] += len(ready)
    return frames


@given(
    texts=st.lists(st.text("abc", max_size=9), min_size=1, max_size=3),
    breaks=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), max_size=6),
    cuts=st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
def test_no_event_and_no_character_is_lost_or_doubled(texts, breaks, cuts):
    events = life(texts)
    cursor, received = Cursor(), list[Event]()
    for upto, most in [*sorted(breaks), (len(events), 10_000), (len(events), 10_000), (len(events), 10_000)]:
        if cursor.over:
            break
        try:
            for frame in served(events, upto, cursor.after, cursor.offset, [1] if most == 10_000 else cuts)[:most]:
                event = cursor.take(frame)
                received += [event] if event is not None else []
        except Gap:
            continue
    assert cursor.over
    assert numbers(received) == list(range(1, len(out_numbered(events)) + 1))
    for attempt in range(1, len(texts) + 1):
        read_text = text(received, attempt)
        assert texts[attempt - 1].startswith(read_text)
    assert text(received, len(texts)) == texts[-1]


def test_a_missing_number_or_missing_text_is_noticed():
    cursor = Cursor()
    assert cursor.take(numbered(1, "job.queued")) is not None
    with pytest.raises(Gap):
        cursor.take(numbered(3, "job.completed", 1))
    assert (cursor.after, cursor.over) == (1, False)
    cursor.take(delta(1, 0, "Hel"))
    with pytest.raises(Gap):
        cursor.take(delta(1, 4, "o"))
    assert cursor.offset == 3


def test_text_that_overlaps_is_cut_to_what_is_new():
    cursor = Cursor()
    cursor.take(delta(1, 0, "Hel"))
    event = cursor.take(delta(1, 1, "ello"))
    assert event is not None
    assert (event.offset, event.delta, event.raw["data"]) == (3, "lo", {"offset": 3, "delta": "lo"})
    assert cursor.take(delta(1, 0, "Hello")) is None


def test_whoever_asks_for_text_from_somewhere_gets_it_from_there():
    cursor = Cursor(offset=100)
    event = cursor.take(delta(1, 100, "x"))
    assert event is not None
    assert (event.offset, event.delta) == (100, "x")
    with pytest.raises(Gap):
        cursor.take(delta(2, 5, "y"))  # the trust was for the first text alone


@pytest.mark.parametrize("data", ["no json", "[1]", '{"seq": "one", "type": "x"}', '"x"'])
def test_what_is_no_event_is_passed_over(data):
    assert Cursor().take(Frame("job.queued", data, "")) is None


def test_a_bare_delta_and_an_event_of_a_newer_api_are_read():
    cursor = Cursor()
    bare = cursor.take(Frame(DELTA, '{"offset": 0, "delta": "Hi"}', ""))
    assert bare is not None
    assert (bare.type, bare.delta) == (DELTA, "Hi")
    new = cursor.take(Frame("job.sung", '{"seq": 1, "type": "job.sung", "melody": "la", "data": {"tune": 1}}', ""))
    assert new is not None
    assert (new.type, new.seq, new.data, new.model_extra) == ("job.sung", 1, {"tune": 1}, {"melody": "la"})
