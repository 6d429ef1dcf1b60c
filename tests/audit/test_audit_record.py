"""A record holds everything an auditor asks for (contract section 5), and never content."""

import json
from datetime import timedelta
from decimal import Decimal

from builders import BLOCKED, COMPLETED, LUNA, SOL, STARTED, T0, began, disclosure, done, life, noticed, queued

from worker.audit.record import note_record, record_of
from worker.jobs import events as ev
from worker.jobs.record import JobError, ProviderError, Usage
from worker.jobs.states import CheckEnd, Outcome, Purpose
from worker.safety.policy import POLICY_VERSION

FIRST = queued(input_digest="d" * 64)
UPDATED = ev.AttemptUpdated(
    request_id="req_1",
    response_id="resp_1",
    organization="org-1",
    project="proj_1",
    http_status=200,
    processing_ms=12,
    first_event_at=T0 + timedelta(seconds=2.25),
)
ANSWERED = done(
    served_model=SOL,
    served_raw={"requested": SOL, "terminal": f"{SOL}-2026-06-01"},
    service_tier="flex",
    usage=Usage(input_tokens=3, output_tokens=4, total_tokens=7),
    cost=Decimal("0.0123"),
    first_output_at=T0 + timedelta(seconds=5),
)


def last(*drafts, first=FIRST):
    job, trail = life(*drafts, first=first)
    return record_of(job, trail[-1])


def test_every_record_says_whose_job_it_was_and_what_was_asked_without_showing_it():
    record = last()
    assert (record["app"], record["key_id"], record["job_id"], record["type"]) == (
        "shop",
        "key_1",
        life()[0].id,
        "job.queued",
    )
    assert (record["requested_model"], record["served_model"], record["input_digest"]) == (SOL, None, "d" * 64)
    assert record["at"] == "2026-07-01T12:00:00Z"


def test_the_last_record_of_an_attempt_tells_the_whole_call():
    began_proxied = began().evolve(proxied=True)
    record = last((STARTED, None), (began_proxied, 1), (UPDATED, 1), (ANSWERED, 1))
    assert record["call"] == {
        "model": SOL,
        "mode": "background",
        "purpose": "original",
        "because": None,
        "client_request_id": "c-1",
        "request_id": "req_1",
        "response_id": "resp_1",
        "organization": "org-1",
        "project": "proj_1",
        "http_status": 200,
        "served_model": SOL,
        "alias_target": f"{SOL}-2026-06-01",
        "service_tier": "flex",
        "resumed": 0,
        "outcome": "completed",
        "error": None,
        "usage": {
            "input_tokens": 3,
            "cached_input_tokens": 0,
            "output_tokens": 4,
            "reasoning_tokens": 0,
            "total_tokens": 7,
            "estimated": False,
        },
        "cost": "0.012300",
        "egress_proxy": True,
        "latency_ms": {"provider": 12, "first_event": 250, "first_output": 3000, "total": 3000},
    }


def test_a_failed_call_is_told_by_class_and_code_of_both_sides():
    provider = ProviderError(code="server_error", type="server_error", http_status=500, request_id="req_9")
    error = JobError(type="provider", code="server_error", message="Broke.", advice="Again.", provider=provider)
    record = last((STARTED, None), (began(), 1), (done(Outcome.SERVER_ERROR, error=error), 1))
    assert record["call"]["error"] == {"class": "provider", "code": "server_error", "provider": provider.model_dump()}


def test_a_check_is_an_interval_with_its_evidence():
    over = ev.CheckEnded(ended_by=CheckEnd.OUTPUT)
    record = last((STARTED, None), (began(), 1), (noticed(), 1), (over, 1))
    assert record["checks"] == [
        {
            "evidence": "signalled",
            "started_at": "2026-07-01T12:00:03Z",
            "ended_at": "2026-07-01T12:00:04Z",
            "use_cases": ["cyber"],
            "reasons": [],
            "ended_by": "output",
        }
    ]


def test_a_substitution_says_who_decided_and_by_which_policy():
    stopped = done(Outcome.SUBSTITUTED)
    switched = ev.ModelSubstituted(disclosure=disclosure(reason="safety_check_delay"))
    again = began(LUNA, Purpose.FASTER).evolve(because="safety_check_delay")
    drafts = [(STARTED, None), (began(), 1), (stopped, 1), (switched, 1)]
    record = last(*drafts)
    assert record["decision"] == {"by": "policy", "policy_version": POLICY_VERSION}
    assert (record["disclosure"]["served_model"], record["disclosure"]["reason"]) == (LUNA, "safety_check_delay")
    assert last(*drafts, (again, 2))["decision"] == {"by": "policy", "policy_version": POLICY_VERSION}
    assert last((STARTED, None), (began(), 1))["decision"] is None


def test_the_provider_and_the_app_decide_without_a_policy():
    rerouted = disclosure(reason="provider_reroute", decided_by="provider")
    ended = ev.Completed(served_model=LUNA, disclosure=rerouted)
    record = last((STARTED, None), (began(), 1), (done(served_model=LUNA, cost=Decimal("0.2")), 1), (ended, 1))
    assert record["decision"] == {"by": "provider", "policy_version": None}
    assert (record["served_model"], record["cost"]) == (LUNA, {"total": "0.200000", "wasted": "0.000000"})
    cancelled = ev.Cancelled(upstream_under_way=False, billed=False, by="key_7")
    assert last((cancelled, None))["decision"] == {"by": "app", "key_id": "key_7", "policy_version": None}


def test_an_end_of_any_kind_tells_its_cost():
    record = last((STARTED, None), (began(), 1), (done(Outcome.BLOCKED, cost=Decimal("0.1")), 1), (BLOCKED, 1))
    assert record["cost"] == {"total": "0.100000", "wasted": "0.100000"}
    assert "cost" not in last((STARTED, None))
    assert last((STARTED, None), (began(), 1), (done(served_model=SOL), 1), (COMPLETED, 1))["cost"]["total"] is None


def test_an_act_is_no_event_and_says_who_and_why():
    record = note_record(
        "job.content.deleted", at=T0, app="shop", job_id="job_1", by="key_1", why="asked for", data={"n": 1}
    )
    assert (record["seq"], record["type"], record["at"]) == (None, "job.content.deleted", "2026-07-01T12:00:00Z")
    assert record["data"] == {"n": 1, "by": "key_1", "reason": "asked for"}
    assert json.loads(json.dumps(record)) == record
