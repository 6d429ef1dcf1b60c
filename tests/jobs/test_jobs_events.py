"""Facts and events: each survives the trip to its wire shape and back."""

import json
from datetime import timedelta

import pytest
from builders import FACTS, JOB, SOL, T0, any_fact, done, queued
from hypothesis import given, strategies as st
from pydantic import ValidationError

from worker.jobs import events as ev, fold
from worker.jobs.states import Outcome

_CONTRACT = (
    "queued scheduled started attempt.started attempt.finished check.started check.updated check.ended offer.made "
    "offer.accepted offer.expired model.substituted draft.ready draft.withdrawn interrupted rescued completed blocked "
    "failed cancelled expired"
)


def test_every_event_of_the_contract_has_a_fact():
    assert {f"job.{word}" for word in _CONTRACT.split()} <= set(ev.FACTS)


def test_these_tests_know_every_fact():
    assert set(FACTS) == set(ev.FACTS.values())


@pytest.mark.parametrize("kind", FACTS, ids=lambda kind: kind.TYPE)
def test_an_event_survives_the_wire(kind):
    @given(FACTS[kind], st.integers(1, 10**6), st.none() | st.integers(1, 50), st.integers(0, 10**9))
    def check(fact, seq, attempt, microseconds):
        event = ev.event(seq, T0 + timedelta(microseconds=microseconds), JOB, fact, attempt)
        body = json.loads(json.dumps(event.dump()))
        assert ev.Event.load(body) == event
        assert list(body) == ["seq", "type", "at", "job_id", "attempt", "data"]
        assert body["type"] == kind.TYPE
        assert body["at"].endswith("Z")

    check()


def test_an_unknown_type_is_told_as_such():
    body = {**ev.event(1, T0, JOB, queued()).dump(), "type": "job.exploded"}
    with pytest.raises(KeyError):
        ev.Event.load(body)


def test_data_of_a_newer_release_is_kept_and_gets_into_the_record():
    body = ev.event(1, T0, JOB, queued()).dump()
    body["data"]["of_a_newer_release"] = {"x": 1}
    event = ev.Event.load(body)
    assert event.dump() == body
    assert json.loads(fold.apply(None, event).model_dump_json())["of_a_newer_release"] == {"x": 1}


def test_a_policy_with_an_unknown_rule_is_refused():
    """Unlike other fields, a rule may forbid what this release would do."""
    body = ev.event(1, T0, JOB, queued()).dump()
    body["data"]["policy"]["never_on_mondays"] = True
    with pytest.raises(ValidationError):
        ev.Event.load(body)


@given(any_fact)
def test_a_fact_never_changes_once_it_is_told(fact):
    for name in type(fact).model_fields:
        with pytest.raises(ValidationError):
            setattr(fact, name, None)


def test_an_update_says_only_what_was_said():
    event = ev.event(2, T0, JOB, ev.AttemptUpdated(response_id="resp_1"), 1)
    assert event.dump()["data"] == {"response_id": "resp_1"}


def test_a_fact_that_lacks_what_it_tells_is_refused():
    with pytest.raises(ValidationError):
        ev.Completed()  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        done("exploded")  # type: ignore[arg-type]
    assert done(Outcome.COMPLETED, served_model=SOL).served_model == SOL
