"""The packet for the provider's support: the request that matters first, exact where it can be, content-free always."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from worker.jobs.record import Attempt, Block, Check, Job, JobError, ProviderError
from worker.jobs.spec import Policy
from worker.safety.packet import build_packet
from worker.safety.redact import redact

NOW = datetime(2026, 11, 22, 21, 30, tzinfo=UTC)
CANARY = "How do I make the thing in my secret prompt?"
SOL = "gpt-5.6-sol"


def attempt(number=1, outcome="completed", **more: Any) -> Attempt:
    base: dict[str, Any] = {
        "number": number,
        "model": SOL,
        "purpose": "original",
        "mode": "background",
        "client_request_id": f"job_x-{number}",
        "started_at": NOW - timedelta(minutes=number),
        "finished_at": NOW - timedelta(seconds=number, milliseconds=-7),
        "request_id": f"req_{number}",
        "organization": "org-sim",
        "project": "proj_sim",
        "http_status": 200,
        "outcome": outcome,
    }
    return Attempt(**{**base, **more})


def failed(outcome: str, code: str | None, status: int, **more: Any) -> Attempt:
    provider = ProviderError(code=code, type="invalid_request_error", http_status=status, request_id="req_1")
    error = JobError(type=outcome, code="x", message="m", advice="a", provider=provider)
    return attempt(outcome=outcome, http_status=status, error=error, **more)


def job(*attempts: Attempt, **more: Any) -> Job:
    base: dict[str, Any] = {
        "id": "job_x",
        "version": 3,
        "app": "acme",
        "key_id": "key_1",
        "requested_model": SOL,
        "policy": Policy(),
        "priority": "default",
        "safety_identifier": "0123abcd",
        "input_digest": None,
        "not_before": None,
        "created_at": NOW,
        "status": "running",
        "attempts": attempts,
    }
    return Job(**{**base, **more})


def blocked(*attempts: Attempt, **more: Any) -> Job:
    block = Block(category="cyber", code="cyber_policy", carrier="error_event", after_output=True, advice="Stop.")
    return job(*attempts, status="blocked", block=block, finished_at=NOW, **more)


def made(one: Job, messages: dict[str, str] | None = None, description: str | None = None) -> dict[str, Any]:
    return build_packet(one, messages or {}, (), redact(description) if description else None, NOW)


def test_the_template_has_every_field_the_support_asks_for():
    body = made(blocked(attempt(outcome="blocked")), description="Our firewall review was withheld.")
    lines = dict(line.split(":", 1) for line in body["text"].splitlines() if ":" in line and not line.startswith(" "))
    assert {k: v.strip() for k, v in lines.items()} == {
        "Surface": "API, Responses (background mode, streamed)",
        "Model": SOL,
        "Organization": "org-sim",
        "Account": "API key of project proj_sim; end user by safety_identifier 0123abcd",
        "Exact message": "an error without words (code cyber_policy, HTTP 200)",
        "Request ID": "req_1",
        "Timestamp": "2026-11-22 21:29:59.007 UTC (+00:00)",
        "VPN or proxy": "no egress proxy was configured; whether a VPN was in use is not known to Vigil",
        "Description": "Our firewall review was withheld.",
    }


def test_the_providers_message_is_shown_only_when_it_is_known_to_hold_names_alone():
    known = f"The model `{SOL}` does not exist or you do not have access to it."
    one = job(failed("access_denied", "model_not_found", 404))
    exact = made(one, {"1": known})["requests"][0]["exact_message"]
    assert exact == f'"{known}" (code model_not_found, type invalid_request_error, HTTP 404)'
    for words in (f"{known} {CANARY}", CANARY, known.replace(SOL, CANARY), known.replace(SOL, "gpt-5.6-terra")):
        body = made(one, {"1": words})
        assert "withheld" in body["requests"][0]["exact_message"]
        assert words not in str(body)


def test_the_request_that_matters_most_comes_first():
    check = Check(
        attempt=2, evidence="signalled", started_at=NOW, ended_at=NOW + timedelta(seconds=47.2), use_cases=("cyber",)
    )
    one = blocked(
        attempt(1, "overloaded", error=JobError(type="overloaded", code="overloaded", message="m", advice="a")),
        attempt(2, "substituted"),
        failed("access_denied", "model_not_found", 404, number=3),
        attempt(4, "completed"),
        attempt(5, "blocked"),
        checks=(check,),
    )
    body = made(one)
    assert [(r["attempt"], r["why"]) for r in body["requests"]] == [
        (5, "blocked"), (3, "denied"), (2, "checked"), (1, "failed"),
    ]  # fmt: skip
    assert "no error; an additional safety check was signalled for 47.2 s (cyber)" in body["text"]
    assert body["text"].index("req_5") < body["text"].index("Also attempt 3 (denied)") < body["text"].index("req_2")


def test_silence_is_never_called_a_check():
    check = Check(attempt=1, evidence="suspected", started_at=NOW, ended_at=NOW + timedelta(seconds=60))
    (request,) = made(job(attempt(), checks=(check,)))["requests"]
    assert (request["why"], request["exact_message"]) == (
        "delayed", "no error; silence for 60 s, which may have been a safety check",
    )  # fmt: skip


def test_a_job_that_was_never_sent_says_so():
    text = made(job(status="queued"))["text"]
    assert "Exact message: no request was sent yet" in text
    assert "Request ID:    none" in text


def test_a_description_has_its_secrets_taken_out_and_can_not_pass_for_a_field():
    body = made(blocked(attempt(outcome="blocked")), description="my key vgl_0123456789abcdef\nRequest ID: req_faked")
    assert body["redactions"] == [{"detector": "Vigil API Key", "count": 1}]
    assert "0123456789abcdef" not in str(body)
    assert [line for line in body["text"].splitlines() if line.startswith("Request ID")] == ["Request ID:    req_1"]


PLACES = ["organization", "project", "request_id", "response_id", "served_model", "client_request_id", "model"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [CANARY, "sk-proj-abcdEFGHijklMNOPqrst1234", "a\nRequest ID: x"])
def test_prose_in_the_place_of_a_name_is_not_shown(place, value):
    body = made(blocked(attempt(outcome="blocked", **{place: value})))
    assert value not in str(body)
    assert value not in body["text"]


@given(
    st.sampled_from(["blocked", "access_denied", "completed", "server_error"]),
    st.text(min_size=8, max_size=40).map(lambda s: f"canary {s}"),
    st.sampled_from([None, "cyber_policy", "model_not_found"]),
)
def test_whatever_the_provider_says_stays_with_the_app(outcome, words, code):
    one = failed(outcome, code, 400)
    body = made(blocked(one) if outcome == "blocked" else job(one), {"1": words})
    assert words.strip() not in body["text"]
    wild = failed(outcome, words, 400, flags=(words,), service_tier=words, served_raw={"header": words})
    check = Check(attempt=1, evidence="signalled", started_at=NOW, ended_at=NOW, use_cases=(words,), reasons=(words,))
    body = made(blocked(wild, checks=(check,)) if outcome == "blocked" else job(wild, checks=(check,)), {"1": words})
    assert words.strip() not in str(body)
