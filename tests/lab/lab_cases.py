"""Makes small cases that can be calculated by hand, and a trail in the form of an export."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

from worker.jobs import events as ev
from worker.jobs.catalogue import parse
from worker.jobs.record import Usage
from worker.jobs.states import CheckEnd, Evidence, Outcome, Purpose, RetryModelState
from worker.lab import evaluate
from worker.lab.model import CheckSpan, LabCase

CATALOGUE = parse(tomllib.loads((Path(__file__).parents[2] / "models.toml").read_text()))
SOL, LUNA = "gpt-5.6-sol", "gpt-5.6-luna"
T0 = datetime(2026, 7, 10, 12, 0, tzinfo=UTC)


def case(**changes):
    """100 s on sol with a check from 0 to 80 s; luna takes 20 s; a million tokens in, a million out."""
    usual = {
        "model": SOL,
        "end": 100.0,
        "input_tokens": 1_000_000,
        "output_tokens": 1_000_000,
        "faster_seconds": 20.0,
        "faster_tokens": 1_000_000,
        "holds": (CheckSpan(0.0, 80.0),),
        "silences": ((0.0, 80.0),),
        "acceptance_draw": 0.5,
    }
    return LabCase(**{**usual, **changes})


def one(cases, action, after=40.0, silence=0.0, **more):
    """Return the row of one policy over the cases."""
    cases = cases if isinstance(cases, list) else [cases]
    return evaluate.grid(cases, CATALOGUE, [action], [after], silence, **more)[0]


def parsed(svg):
    """Return the chart as XML; raise ParseError if it is none."""
    return ET.fromstring(svg)  # noqa: S314  we wrote it


class Trail:
    """Audit records of made-up jobs, one line each."""

    def __init__(self):
        self.lines, self.seq = [], 0

    def say(self, at, fact, attempt=None, job="job_1"):
        self.seq += 1
        event = ev.event(self.seq, T0 + timedelta(seconds=at), job, fact, attempt)
        self.lines.append(json.dumps({**event.dump(), "app": "a", "key_id": "k", "requested_model": SOL}))
        return self

    def begin(self, at=0.0, number=1, purpose=Purpose.ORIGINAL, model=SOL, job="job_1"):
        intent = ev.AttemptStarted(model=model, purpose=purpose, mode="background", client_request_id="c")
        return self.say(at, intent, number, job)

    def check(self, start, end, ended_by=CheckEnd.OUTPUT, evidence=Evidence.SIGNALLED, job="job_1", **data):
        self.say(start, ev.CheckStarted(evidence=evidence, **data), 1, job)
        return self.say(end, ev.CheckEnded(ended_by=ended_by), 1, job)

    def end(self, at, outcome=Outcome.COMPLETED, number=1, job="job_1", read=100, written=200):
        usage = Usage(input_tokens=read, output_tokens=written, total_tokens=read + written)
        return self.say(at, ev.AttemptFinished(outcome=outcome, usage=usage), number, job)


NAMED = RetryModelState.NAMED
