"""The support packet over HTTP: made of real jobs, without a word of their inputs and outputs."""

from __future__ import annotations

import pytest
from api_server import submitted
from full_stack import full_stack

from worker.store import keys

SECRET_WORDS = ["xyzzy-prompt-canary", "mallory@corp.example", "plugh-metadata-canary", "sk-stage", "hook.example"]
PROMPT = "xyzzy-prompt-canary"


@pytest.fixture
async def vigil(redis, valkey_url):
    async with full_stack(redis, valkey_url, speed=200) as running:
        await running.stage.worker()
        yield running


async def packet_of(vigil, text, **more):
    job_id = await vigil.submit(
        f"{text} {PROMPT}",
        end_user="mallory@corp.example",
        metadata={"note": "plugh-metadata-canary"},
        webhook={"url": "https://hook.example/x", "events": ["job.expired"]},
        **more,
    )
    await vigil.stage.settled(job_id)
    path = f"/v1/jobs/{job_id}/support-packet"
    as_json = await vigil.app.get(path, headers={"Accept": "application/json"})
    as_text = await vigil.app.get(path)
    assert (as_text.status_code, as_json.status_code) == (200, 200)
    assert as_text.headers["content-type"] == "text/plain; charset=utf-8"
    output = await vigil.stage.output(job_id)
    for word in [*SECRET_WORDS, *([str(output)] if output else [])]:
        assert word not in as_text.text
        assert word not in as_json.text
    body = as_json.json()
    assert body["text"].splitlines()[1:] == as_text.text.splitlines()[1:]
    return job_id, body


@pytest.mark.parametrize(
    ("scenario", "why", "outcome"),
    [
        ("check_then_block hold=2", "blocked", "code cyber_policy"),
        ("bio_block hold=2", "blocked", "code bio_policy"),
        ("block_before_stream", "blocked", "code "),
        ("misalignment", "blocked", "code misalignment_policy_violation"),
        ("content_filter", "blocked", "code content_filter"),
        ("check_then_clear hold=2", "checked", "an additional safety check was signalled for"),
        ("rerouted", "rerouted", "no error was reported"),
        ("normal", "other", "no error was reported"),
    ],
)
async def test_the_outcome_is_named_by_its_code(vigil, scenario, why, outcome):
    job_id, body = await packet_of(vigil, f"[[sim: {scenario} tokens=3]]")
    request, attempt = body["requests"][0], (await vigil.view(job_id))["attempts"][0]
    assert (request["why"], request["request_id"]) == (why, attempt["request_id"])
    assert outcome in request["exact_message"]
    assert request["organization"] == "org-sim"
    assert request["timestamp"].endswith("UTC (+00:00)")


async def test_an_access_denial_is_quoted_since_it_contains_only_names(vigil):
    vigil.stage.sim.deny("gpt-5.6-sol")
    _, body = await packet_of(vigil, "hello", policy={"fallback": []})
    known = '"The model `gpt-5.6-sol` does not exist or you do not have access to it." (code model_not_found,'
    assert body["requests"][0]["exact_message"].startswith(known)


async def test_the_description_is_included_without_its_secrets_and_is_not_stored(vigil, redis):
    job_id, _ = await packet_of(vigil, "[[sim: bio_block hold=0]]")
    words = {"description": "Our review was withheld.\nWe used vgl_0123456789abcdefghij and ghp_" + "a1" * 18}
    answer = await vigil.app.post(
        f"/v1/jobs/{job_id}/support-packet", json=words, headers={"Accept": "application/json"}
    )
    body = answer.json()
    assert (
        body["description"]
        == "Our review was withheld.\nWe used [redacted: Vigil API Key] and [redacted: GitHub Token]"
    )
    assert {(one["detector"], one["count"]) for one in body["redactions"]} == {
        ("Vigil API Key", 1),
        ("GitHub Token", 1),
    }
    assert "Our review was withheld." in body["text"]
    again = await vigil.app.get(f"/v1/jobs/{job_id}/support-packet")
    assert "Our review" not in again.text
    text = await vigil.app.post(f"/v1/jobs/{job_id}/support-packet", json=words)
    assert text.headers["content-type"].startswith("text/plain")


LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
WORDED = "simulated: withheld for possible cyber risk"


@pytest.mark.parametrize("scenario", ["check_then_block hold=1", "flat_error", "block_before_stream", "gateway_block"])
async def test_the_exact_words_of_a_block_are_shown_without_what_they_quote(vigil, redis, caplog, scenario):
    caplog.set_level("DEBUG")
    ids = {}
    for quote in (0, 7, 14):
        ids[quote] = await vigil.submit(f"[[sim: {scenario} quote={quote}]] {LONG} {PROMPT}")
        await vigil.stage.settled(ids[quote])
    shown = {}
    for quote, job_id in ids.items():
        (attempt,) = (await vigil.view(job_id))["attempts"]
        shown[quote] = attempt["provider_message"]
        packet = (await vigil.app.get(f"/v1/jobs/{job_id}/support-packet")).text
        assert f'Exact error message: "{shown[quote]}"' in packet
        assert attempt["provider_message_cut"] == (["quoted"] if quote == 14 else [])
    assert shown[0].count(WORDED) == 1
    assert shown[7] == shown[0].replace(WORDED, f"{WORDED}: one two three four five six seven")
    assert "fourteen" not in shown[14]
    assert shown[14].startswith(shown[0].partition(WORDED)[0] + WORDED)
    assert "[cut: quotes the request or the answer]" in shown[14]
    records = str([await redis.hget(keys.job(job_id), "rec") for job_id in ids.values()])
    trail = str([await vigil.stage.jobs.trail(job_id) for job_id in ids.values()])
    for place in (caplog.text, records, trail, str(await redis.xrange(keys.AUDIT))):
        assert "possible cyber risk" not in place
    assert (await vigil.app.delete(f"/v1/jobs/{ids[0]}")).status_code < 300
    assert (await vigil.view(ids[0]))["attempts"][0]["provider_message"] is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"description": ""}, 422),
        ({"description": " \n "}, 422),
        ({"description": "x" * 2001}, 422),
        ({"description": 7}, 422),
        ({"description": "x", "prompt": "y"}, 422),
        ([], 422),
    ],
)
async def test_a_description_is_a_short_text(acme, body, status):
    job_id = await submitted(acme)
    answer = await acme.post(f"/v1/jobs/{job_id}/support-packet", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_a_job_that_still_waits_has_a_packet_and_another_apps_has_none(api, acme):
    job_id = await submitted(acme)
    assert "no request was sent yet" in (await acme.get(f"/v1/jobs/{job_id}/support-packet")).text
    other = await api.client("other")
    assert (await other.get(f"/v1/jobs/{job_id}/support-packet")).status_code == 404
    assert (await other.post(f"/v1/jobs/{job_id}/support-packet", json={"description": "x"})).status_code == 404


async def test_a_notice_is_in_the_packet_of_its_job(vigil):
    job_id, _ = await packet_of(vigil, "[[sim: check_then_block hold=2 notify=warning]]")
    notice = await vigil.notice(job_id, lambda notice: notice["category"])
    text = (await vigil.app.get(f"/v1/jobs/{job_id}/support-packet")).text
    assert f"Notice: safety.warning_issued, {notice['subject']}" in text
