"""What is said, how it is signed, and when it is said again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from builders import BLOCKED, CANCELLED, EXPIRED, FAILED, STARTED, T0, began, disclosure, done, life
from document_check import document
from hypothesis import given, strategies as st
from openai import OpenAI
from standardwebhooks.webhooks import Webhook
from webhook_receivers import OLD_SECRET, SECRET

from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.view import job_view
from worker.settings import Settings
from worker.webhooks.message import WebhookEvent, body_of
from worker.webhooks.schedule import JITTER, MAX_RETRY_AFTER, TryVerdict, max_duration, next_delay, retry_after, verdict
from worker.webhooks.signing import new_secret, signed_headers

DELAYS = Settings(_env_file=None).webhook_schedule
PRIVATE = {
    "metadata": {"ticket": "A-17"},
    "end_user": "ann",
    "webhook": {"url": "https://x.example/", "payload": "full"},
}
ANSWER = {"output_text": "The secret answer.", "output": [], "draft": "A draft.", "provider_messages": {"1": "Quoted."}}


def completed(**changes):
    job, trail = life(
        (STARTED, None), (began(), 1), (done(), 1), (ev.Completed(served_model="gpt-5.6-sol", **changes), 1)
    )
    return job, WebhookEvent(trail[-1].type, trail[-1].seq, trail[-1].at)


def payload_of(kind, job, webhook_event, answer=None):
    text = body_of(kind, "msg_01", job, webhook_event, PRIVATE, answer)
    body = text and json.loads(text)
    if kind != "openai":
        document().check("ThinMessage" if kind == "thin" else "FullMessage", body)
    return body


def test_thin_says_how_it_stands_and_nothing_of_what_was_said():
    body = payload_of("thin", *completed(), ANSWER)
    assert set(body) == {"type", "timestamp", "data"}
    assert body["type"] == "job.completed"
    assert body["timestamp"].endswith("Z")
    data = body["data"]
    assert set(data) == {
        *(
            "id",
            "seq",
            "status",
            "reason",
            "requested_model",
            "served_model",
            "disclosure",
            "error",
            "safety",
            "unfiltered",
            "billed",
            "urls",
            "metadata",
        ),
    }
    assert (data["seq"], data["status"], data["served_model"]) == (5, "completed", "gpt-5.6-sol")
    assert data["metadata"] == {"ticket": "A-17"}
    assert data["safety"]["state"] == "none"
    text = json.dumps(body)
    assert not any(word in text for word in ("secret answer", "draft.", "Quoted", "ann", "x.example"))
    assert len(text) < 20_000


def test_thin_carries_the_disclosure():
    job, webhook_event = completed()
    job = job.evolve(
        served_model="gpt-5.6-luna",
        disclosure=disclosure(),
        attempts=(job.attempts[0].evolve(served_model="gpt-5.6-luna"),),
    )
    data = payload_of("thin", job, webhook_event)["data"]
    assert (data["requested_model"], data["served_model"]) == ("gpt-5.6-sol", "gpt-5.6-luna")
    assert data["disclosure"]["reason"] == "access_denied"


def test_full_is_the_job_as_the_api_gives_it_without_its_draft():
    job, webhook_event = completed()
    data = payload_of("full", job, webhook_event, ANSWER)["data"]
    assert data["output_text"] == "The secret answer."
    assert data["draft"] is None
    assert set(data) == set(job_view(job, PRIVATE, ANSWER, None, ""))


@pytest.mark.parametrize(
    ("end", "reason", "kind"),
    [
        (None, None, "response.completed"),
        (None, "max_output_tokens", "response.incomplete"),
        (FAILED, None, "response.failed"),
        (EXPIRED, None, "response.failed"),
        (CANCELLED, None, "response.cancelled"),
        (BLOCKED, None, "response.failed"),
    ],
)
def test_openai_events_are_unwrapped_by_the_providers_sdk(end, reason, kind):
    if end is None:
        job, webhook_event = completed(reason=reason)
    else:
        steps = [(STARTED, None), (began(), 1), (done("blocked" if end is BLOCKED else "server_error"), 1)]
        job, trail = life(*steps, (end, 1 if end is BLOCKED else None))
        webhook_event = WebhookEvent(trail[-1].type, trail[-1].seq, trail[-1].at)
    body = body_of("openai", "msg_01", job, webhook_event, PRIVATE, ANSWER)
    headers = signed_headers("msg_01", Clock().now(), body, [SECRET])
    client = OpenAI(api_key="x", webhook_secret=SECRET)
    event = client.webhooks.unwrap(body, headers)
    assert (event.type, event.object, event.id) == (kind, "event", "evt_01")
    assert event.data.id == "resp_" + job.id.removeprefix("job_")
    assert event.created_at == int(webhook_event.at.timestamp())
    client.close()


def test_openai_has_no_words_for_what_is_under_way():
    job, trail = life((STARTED, None))
    assert payload_of("openai", job, WebhookEvent(trail[-1].type, 2, T0)) is None


def test_every_live_secret_signs_and_times_are_utc():
    at = Clock().now().astimezone(timezone(timedelta(hours=2)))
    headers = signed_headers("msg_1", at, '{"a":"é"}', [SECRET, OLD_SECRET])
    for secret in (SECRET, OLD_SECRET):
        assert Webhook(secret).verify('{"a":"é"}'.encode(), headers) == {"a": "é"}
    assert headers["webhook-timestamp"] == str(int(at.timestamp()))
    assert headers["webhook-signature"].count("v1,") == 2
    assert new_secret(b"x" * 32).startswith("whsec_")


def test_the_default_schedule_is_the_contracts():
    assert DELAYS == (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
    assert [next_delay(DELAYS, n, 0.5) for n in range(1, 11)] == [*DELAYS, None]


chances = st.floats(0, 1, exclude_max=True)
schedules = st.lists(st.floats(0, 86_400), min_size=1, max_size=10).map(tuple)


@given(schedules, st.integers(1, 12), chances, st.none() | st.floats(0, 1e9))
def test_delays_are_bounded_and_never_earlier_than_asked(delays, tries, jitter, retry_after):
    delay = next_delay(delays, tries, jitter, retry_after)
    if tries > len(delays):
        assert delay is None
        return
    planned, patience = delays[tries - 1], min(retry_after or 0, MAX_RETRY_AFTER)
    assert delay >= patience
    assert delay >= planned * (1 - JITTER) - 1e-6
    assert delay <= max(planned * (1 + JITTER), patience) + 1e-6
    assert delay <= max_duration(delays)


@given(chances, chances, st.integers(1, 8))
def test_with_the_default_schedule_each_delay_is_longer_than_the_one_before_on_average(one, other, tries):
    assert next_delay(DELAYS, tries, 0.5) < next_delay(DELAYS, tries + 1, 0.5)
    low, high = sorted((one, other))
    assert next_delay(DELAYS, tries, low) <= next_delay(DELAYS, tries, high)


@pytest.mark.parametrize(
    ("status", "error", "what"),
    [
        *((status, None, TryVerdict.DELIVERED) for status in (200, 201, 202, 204, 299)),
        *(
            (status, None, TryVerdict.FAILED)
            for status in (100, 199, 300, 301, 302, 304, 307, 400, 401, 404, 429, 500, 503)
        ),
        (410, None, TryVerdict.GONE),
        (None, "x", TryVerdict.FAILED),
        (200, "cut", TryVerdict.FAILED),
    ],
)
def test_what_an_answer_means(status, error, what):
    assert verdict(status, error) is what


@pytest.mark.parametrize(
    ("status", "value", "seconds"),
    [
        (429, "7", 7.0),
        (503, " 120 ", 120.0),
        (503, "Wed, 01 Jul 2026 12:01:00 GMT", 60.0),
        (503, "Wed, 01 Jul 2026 11:00:00 GMT", 0.0),
        (429, None, None),
        (429, "soon", None),
        (429, "-5", None),
        (429, "9" * 400, MAX_RETRY_AFTER),
        (429, "", None),
        (500, "7", None),
        (200, "7", None),
    ],
)
def test_retry_after(status, value, seconds):
    assert retry_after(status, value, datetime(2026, 7, 1, 12, tzinfo=UTC)) == seconds
