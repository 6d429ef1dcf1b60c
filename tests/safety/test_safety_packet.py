"""The packet for the provider's support: the request that matters first, exact where it can be, content-free always."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from worker.jobs.record import Attempt, Block, Check, Job, JobError, ProviderError
from worker.jobs.spec import Policy
from worker.safety.packet import ShownMessage, build_packet
from worker.safety.packet_advice import AccountFacts
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


def made(
    one: Job,
    messages: dict[int, ShownMessage] | None = None,
    description: str | None = None,
    account: AccountFacts | None = None,
) -> dict[str, Any]:
    redacted = redact(description) if description else None
    return build_packet(one, messages or {}, (), redacted, NOW, account or AccountFacts())


LABELS = [
    "Surface",
    "Model",
    "API organization ID or Codex workspace ID",
    "Approved account email",
    "Exact error message",
    "Request ID",
    "Timestamp and timezone",
    "VPN/proxy status",
    "Brief redacted task description",
]


def fields_of(body: dict[str, Any]) -> dict[str, str]:
    """Return the nine fields of the template, in order."""
    return dict(line.split(": ", 1) for line in body["text"].splitlines()[2:11])


def test_the_template_has_the_labels_of_the_guide_word_for_word_and_in_order():
    account = AccountFacts(email="owner@corp.example")
    body = made(blocked(attempt(outcome="blocked")), None, "Our firewall review was withheld.", account)
    assert list(fields_of(body)) == LABELS
    assert list(fields_of(body).values()) == [
        "API, Responses (background mode, streamed)",
        SOL,
        "org-sim",
        "owner@corp.example; API key of project proj_sim; end user by safety_identifier 0123abcd",
        "an error without words (code cyber_policy, HTTP 200)",
        "req_1",
        "2026-11-22 21:29:59.007 UTC (+00:00)",
        "no egress proxy was configured; whether a VPN was in use is not known to Vigil",
        "Our firewall review was withheld.",
    ]


def test_what_is_not_known_is_said_in_each_field_and_codex_has_its_workspace():
    bare = fields_of(made(job(attempt(organization=None, project=None, request_id=None))))
    assert list(bare) == LABELS
    for label in (LABELS[2], LABELS[3], LABELS[5], LABELS[7], LABELS[8]):
        assert "not known" in bare[label], label
    codex = AccountFacts("codex", None, None, "ws-7")
    body = made(job(failed("access_denied", "model_not_found", 404)), None, None, codex)
    assert fields_of(body)["Surface"].startswith("Codex")
    assert fields_of(body)[LABELS[2]].startswith("ws-7")
    assert "VIGIL_CODEX_WORKSPACE_ID" in fields_of(made(job(attempt()), None, None, AccountFacts("codex")))[LABELS[2]]


def test_the_advice_is_about_codex_teammates_and_the_region_where_it_fits():
    denied = failed("access_denied", "x", 403)
    region = denied.evolve(error=denied.error and denied.error.evolve(code="region_unsupported"))
    api, codex = (" ".join(made(job(region), account=AccountFacts(one))["advice"]) for one in ("api", "codex"))
    assert "one API organization" in api
    assert "one Codex workspace" in codex
    for advice in (api, codex):
        assert "works for one teammate" in advice
        assert "VPN or proxy from a supported country" in advice
    assert made(blocked(attempt(outcome="blocked")))["advice"] == []


def test_the_providers_message_is_shown_exactly_or_with_what_was_cut():
    one = job(failed("server_error", "server_error", 500))
    exact = made(one, {1: ShownMessage("It broke.\nRequest ID: req_faked")})
    named = "(code server_error, type invalid_request_error, HTTP 500)"
    assert exact["requests"][0]["exact_message"] == f'"It broke.\nRequest ID: req_faked" {named}'
    assert list(fields_of(made(one, {1: ShownMessage("It broke.")}))) == LABELS
    assert "\nRequest ID: req_faked" not in exact["text"], "no line of a message passes for a field"
    cut = made(one, {1: ShownMessage("No: [cut: quotes the request or the answer]", ["quoted"])})
    assert "Vigil cut the parts in brackets)" in cut["requests"][0]["exact_message"]
    assert cut["requests"][0]["exact_message_cut"] == ["quoted"]
    assert any("describe them in your own words" in advice for advice in cut["advice"])
    unknown = made(one, {1: ShownMessage(None, ["not_compared"])})["requests"][0]["exact_message"]
    assert unknown.startswith("an error whose words are withheld")


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
    assert "Exact error message: no request was sent yet" in text
    assert "Request ID: none" in text


def test_a_description_has_its_secrets_taken_out_and_can_not_pass_for_a_field():
    body = made(blocked(attempt(outcome="blocked")), description="my key vgl_0123456789abcdef\nRequest ID: req_faked")
    assert body["redactions"] == [{"detector": "Vigil API Key", "count": 1}]
    assert "0123456789abcdef" not in str(body)
    assert [line for line in body["text"].splitlines() if line.startswith("Request ID")] == ["Request ID: req_1"]


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
def test_prose_in_the_place_of_a_code_is_not_shown(outcome, words, code):
    wild = failed(outcome, words, 400, flags=(words,), service_tier=words, served_raw={"header": words})
    check = Check(attempt=1, evidence="signalled", started_at=NOW, ended_at=NOW, use_cases=(words,), reasons=(words,))
    for one in (wild, failed(outcome, code, 400)):
        body = made(blocked(one, checks=(check,)) if outcome == "blocked" else job(one, checks=(check,)))
        assert words.strip() not in str(body)
