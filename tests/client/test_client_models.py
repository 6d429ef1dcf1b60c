"""The types read what the API sends today and what a newer one may send, and show nothing of content."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st

from worker.client import models, responses
from worker.client.api_model import ApiModel
from worker.client.enums import TERMINAL, JobStatus
from worker.client.models import Event, Job

LEAST: dict[str, Any] = {
    "id": "job_1",
    "status": "queued",
    "created_at": "2026-07-01T12:00:00Z",
    "requested_model": "gpt-5.6-sol",
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(more=st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda n: n not in Job.model_fields), ANYTHING))
def test_fields_of_a_newer_api_are_kept_and_do_no_harm(more):
    job = Job.model_validate(LEAST | more)
    assert job.model_extra == more
    assert job.raw == LEAST | more


def test_words_of_a_newer_api_stay_words():
    newer = LEAST | {
        "status": "paused",
        "safety": {
            "state": "pondering",
            "checks": [],
            "block": {"category": "vibes", "code": "x", "carrier": "pigeon"},
        },
        "attempts": [{"number": 1, "model": "m", "outcome": "sidestepped", "purpose": "fun"}],
    }
    job = Job.model_validate(newer)
    assert (job.status, job.settled, job.safety.state) == ("paused", False, "pondering")
    assert (job.safety.block.category, job.attempts[0].outcome) == ("vibes", "sidestepped")  # type: ignore[union-attr]
    assert Job.model_validate(newer | {"finished_at": LEAST["created_at"]}).settled


@pytest.mark.parametrize("status", list(JobStatus))
def test_known_values_are_enum_members(status):
    job = Job.model_validate(LEAST | {"status": status.value})
    assert type(job.status) is JobStatus
    assert job.settled is (status in TERMINAL)


def test_money_is_exact_and_json_comes_back_as_it_came():
    body = LEAST | {"cost": {"currency": "USD", "total": "0.100000", "wasted": "0.000001"}}
    job = Job.model_validate(body)
    assert job.cost is not None
    assert job.cost.total + job.cost.wasted == Decimal("0.100001")
    assert json.dumps(job.raw) == json.dumps(body)


def test_content_never_shows():
    body = LEAST | {"output_text": "HUSH", "draft": "HUSH", "refusal": "HUSH", "metadata": {"k": "HUSH"}, "new": "HUSH"}
    delta = {"type": models.DELTA, "data": {"offset": 0, "delta": "HUSH"}}
    for one in (
        Job.model_validate(body),
        Event.model_validate(delta),
        responses.Page[Job].model_validate({"data": [body]}),
    ):
        assert "HUSH" not in f"{one!r} {one}"
    with pytest.raises(ValueError, match="created_at") as caught:
        Job.model_validate(body | {"created_at": "HUSH"})
    assert "HUSH" not in str(caught.value)


AT = "2026-07-01T12:00:00Z"
USAGE = {
    "input_tokens": 1,
    "cached_input_tokens": 0,
    "output_tokens": 2,
    "reasoning_tokens": 0,
    "total_tokens": 3,
}
DISCLOSURE = {
    "requested_model": "gpt-5.6-sol",
    "served_model": "gpt-5.6-luna",
    "reason": "safety_check_delay",
    "decided_by": "policy",
    "capability": "lower",
    "at": AT,
    "message": "one plain sentence for a person",
}
CHECK = {
    "attempt": 1,
    "evidence": "signalled",
    "started_at": AT,
    "ended_at": AT,
    "seconds": 47.2,
    "use_cases": ["cyber"],
    "reasons": ["user_risk"],
    "retry_model": "gpt-5.6-luna",
    "ended_by": "substituted",
}
ATTEMPT = {
    "number": 1,
    "model": "gpt-5.6-sol",
    "served_model": None,
    "purpose": "original",
    "outcome": "substituted",
    "request_id": "req_1",
    "response_id": "resp_1",
    "organization": "org-1",
    "project": "proj_1",
    "started_at": AT,
    "first_event_at": AT,
    "first_output_at": None,
    "finished_at": AT,
    "http_status": 200,
    "error": None,
    "usage": {},
    "cost": "0.004000",
    "resumed": 0,
    "sequence": 41,
}
BLOCK = {"category": "cyber", "code": "cyber_policy", "carrier": "http_400", "after_output": False, "advice": "…"}
PROVIDER = {"code": "x", "type": "y", "http_status": 429, "request_id": "req_1"}
ERROR = {"type": "provider", "code": "x", "message": "m", "advice": "a", "provider": PROVIDER}
FULL = {
    "id": "job_1",
    "status": "completed",
    "reason": None,
    "created_at": AT,
    "started_at": AT,
    "finished_at": AT,
    "requested_model": "gpt-5.6-sol",
    "served_model": "gpt-5.6-luna",
    "disclosure": DISCLOSURE,
    "output_text": "…",
    "output": [{"type": "message"}],
    "draft": None,
    "refusal": None,
    "usage": USAGE,
    "cost": {"currency": "USD", "total": "0.012300", "wasted": "0.004000"},
    "safety": {"state": "cleared", "checks": [CHECK], "block": BLOCK, "account_flagged": False},
    "offer": {"model": "gpt-5.6-luna", "since": AT, "until": None},
    "hold": {"scope": "account", "reason": "insufficient_quota", "since": AT},
    "attempts": [ATTEMPT],
    "error": ERROR,
    "webhook": {"url": "…", "state": "delivered"},
    "metadata": {"k": "v"},
    "urls": {"self": "…", "events": "…", "cancel": "…", "support_packet": "…"},
}
RECEIPT = {
    "at": AT,
    "trigger": "manual",
    "status_code": 200,
    "seconds": 0.1,
    "error": None,
    "response_excerpt": "",
}
MESSAGE = {
    "id": "msg_1",
    "type": "job.completed",
    "seq": 5,
    "url": "…",
    "state": "delivered",
    "created_at": AT,
    "next_try_at": None,
    "deliveries": [RECEIPT],
}
MODEL = {
    "id": "gpt-5.6-sol",
    "family": "gpt-5.6",
    "tier": "flagship",
    "checked": True,
    "input_per_million": "2.500000",
    "output_per_million": "15.000000",
    "access": {"status": "ok", "since": AT, "probed_at": AT, "request_id": None, "advice": ""},
}
STATUS = {
    "queue": {"queued": 1, "scheduled": 0, "running": 2, "checking": 1, "oldest_queued_seconds": 0.5},
    "workers": [{"id": "w1", "running": 2, "beat_at": AT, "draining": False}],
    "account": {"state": "normal", "families": {}, "evidence": {}},
    "rates": {"checks": 0.1, "blocks": 0.0, "substitutions": None, "window_seconds": 3600},
    "circuits": [{"scope": "account", "state": "open", "reason": "quota", "since": AT, "next_probe_at": AT}],
    "pauses": [{"scope": "all"}],
}
EVENT = {"seq": 12, "type": "job.started", "at": AT, "job_id": "job_1", "attempt": 1, "data": {"worker": "w"}}
BATCH = {"index": 1, "status": 422, "problem": {"code": "x"}}


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (Job, FULL),
        (models.CancelledJob, FULL | {"cancel": {"upstream_under_way": True}}),
        (responses.BatchRow, BATCH),
        (models.Event, EVENT),
        (responses.Message, MESSAGE),
        (responses.Model, MODEL),
        (responses.Status, STATUS),
        (responses.Page[Job], {"data": [FULL], "next_cursor": "c"}),
    ],
)
def test_every_field_of_the_contract_has_a_type(model, body):
    assert list(untyped(model.model_validate(body))) == []


def untyped(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, ApiModel):
        yield from (f"{path}.{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from untyped(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, tuple):
        for one in value:
            yield from untyped(one, path)
