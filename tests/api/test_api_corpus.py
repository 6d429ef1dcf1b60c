"""The same rule on every route: what is malformed gets the right 4xx in the API's own format, repeats nothing of what
was sent, creates nothing, and leaves the server well. Built from tables, so that a new route is in them by being there.
"""

from __future__ import annotations

from typing import Any

import pytest
from api_server import Running
from arq.connections import ArqRedis
from forbidden_urls import FORBIDDEN
from malformed_requests import URL, FurnishedApi, furnish, refusal, unchanged
from test_api_malformed import BAD_JSON, CANARY, GOOD, NOT_JSON, body

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def target(api: Running, redis: ArqRedis) -> FurnishedApi:
    return await furnish(api, redis)


@pytest.fixture(autouse=True)
async def nothing_changes(target: FurnishedApi):
    async with unchanged(target):
        yield


# ---- bodies

BODIES = [
    ("POST", "/v1/jobs"),
    ("POST", "/v1/jobs/batch"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/webhook-endpoints"),
    ("PATCH", "/v1/webhook-endpoints/{endpoint_id}"),
]
MAYBE_BODIES = [
    ("POST", "/v1/jobs/{job_id}/cancel"),
    ("POST", "/v1/jobs/{job_id}/retry"),
    ("POST", "/v1/jobs/{job_id}/deliveries/{message_id}/redeliver"),
    ("POST", "/v1/webhook-endpoints/{endpoint_id}/rotate-secret"),
    ("POST", "/v1/models/probe"),
    ("POST", "/v1/responses/{job_id}/cancel"),
]
"""These may come without a body; one that comes must be sound."""
WRONG_SHAPES = [b"[]", b"null", b"1", b'"x"', b"true", b'{"unknown": "CANARY-7f3a"}', b'{"id": "x"}']


@pytest.mark.parametrize(("method", "path"), [*BODIES, *MAYBE_BODIES])
async def test_what_is_not_json_is_refused_on_every_route(target, method, path):
    for sent in NOT_JSON:
        if sent or (method, path) in BODIES:
            answer = await target.send(method, path, content=sent, headers=JSON)
            assert refusal(answer, 400) == "malformed_json", sent


@pytest.mark.parametrize(("method", "path"), [*BODIES, *MAYBE_BODIES])
async def test_json_that_can_be_read_in_two_ways_is_refused_on_every_route(target, method, path):
    for sent, code in BAD_JSON:
        assert refusal(await target.send(method, path, content=sent, headers=JSON), 422) == code, sent[:80]


@pytest.mark.parametrize(("method", "path"), [*BODIES, *MAYBE_BODIES])
async def test_a_body_of_the_wrong_shape_is_refused_on_every_route(target, method, path):
    for sent in WRONG_SHAPES:
        refusal(await target.send(method, path, content=sent, headers=JSON), 422)


@pytest.mark.parametrize(("method", "path"), [*BODIES, *MAYBE_BODIES])
async def test_a_body_that_does_not_say_it_is_json_is_refused_on_every_route(target, method, path):
    for kind in ("", "text/plain", "application/xml", "application/json; charset=utf-16", "json", "*/*"):
        answer = await target.send(method, path, content=body(), headers={"Content-Type": kind})
        assert refusal(answer, 415) == "unsupported_media_type", kind
    twice = [("Content-Type", "application/json"), ("Content-Type", "application/json")]
    refusal(await target.send(method, path, content=body(), headers=twice), 415)
    for encoding in ("gzip", "br", "deflate, gzip", "x"):
        headers = JSON | {"Content-Encoding": encoding}
        refusal(await target.send(method, path, content=body(), headers=headers), 415)


@pytest.mark.parametrize(("method", "path"), [*BODIES, *MAYBE_BODIES])
async def test_a_body_that_is_too_long_is_refused_on_every_route(target, method, path, settings):
    answer = await target.send(method, path, content=b" " * (settings.max_body_bytes + 1), headers=JSON)
    assert refusal(answer, 413) == "body_too_large"


ENDPOINT_FIELDS = [
    ({}, "/url"),
    ({"url": 5}, "/url"),
    ({"url": None}, "/url"),
    ({"url": URL, "events": []}, "/events"),
    ({"url": URL, "events": "job.completed"}, "/events"),
    ({"url": URL, "events": ["job.done"]}, "/events/0"),
    ({"url": URL, "events": [None]}, "/events/0"),
    ({"url": URL, "events": ["job.completed"] * 51}, "/events"),
    ({"url": URL, "payload": "fat"}, "/payload"),
    ({"url": URL, "payload": None}, "/payload"),
    ({"url": URL, "description": 5}, "/description"),
    ({"url": URL, "description": "x" * 257}, "/description"),
    ({"url": URL, "description": "a\0b"}, "/description"),
    ({"url": URL, "state": "gone"}, "/state"),
    ({"url": URL, "secret": CANARY}, "/secret"),
    ({"url": URL, "id": "we_1"}, "/id"),
]


async def test_bad_fields_of_an_endpoint_are_pointed_at(target):
    for sent, pointer in ENDPOINT_FIELDS:
        for method, path in (("POST", "/v1/webhook-endpoints"), ("PATCH", "/v1/webhook-endpoints/{endpoint_id}")):
            if method == "PATCH" and not sent:
                continue  # nothing is to be different
            answer = await target.send(method, path, json=sent)
            assert refusal(answer, 422) == "validation_error", sent
            assert pointer in [fault["pointer"] for fault in answer.json()["errors"]], (sent, answer.json())


FACE_FIELDS = [
    ({"background": "true"}, "background"),
    ({"stream": 1}, "stream"),
    ({"store": "no"}, "store"),
    ({"model": 5}, "model"),
    ({"model": "gpt-9"}, "model"),
    ({"input": ""}, "input"),
    ({"input": []}, "input"),
    ({"input": [CANARY]}, "input"),
    ({"instructions": 5}, "instructions"),
    ({"metadata": []}, "metadata"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"user": 5}, "user"),
    ({"safety_identifier": "x" * 201}, "safety_identifier"),
    ({"vigil": []}, "vigil"),
    ({"vigil": {"model": "x"}}, "vigil.model"),
    ({"vigil": {"policy": {"max_attempts": 0}}}, "vigil.policy.max_attempts"),
    ({"vigil": {"priority": "urgent"}}, "vigil.priority"),
    ({"vigil": {"webhook": {"url": URL, "events": ["x"]}}}, "vigil.webhook.events[0]"),
    ({"vigil": {"not_before": "tomorrow"}}, "vigil.not_before"),
    ({"vigil": {"end_user": ""}}, "vigil.end_user"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": {}}, "conversation"),
]


async def test_bad_fields_of_the_openai_api_are_named_as_openai_does(target):
    for changes, param in FACE_FIELDS:
        answer = await target.send("POST", "/v1/responses", json=GOOD | changes)
        refusal(answer, *((404,) if "model" in changes and param == "model" else (400, 422)), 422)
        assert answer.json()["error"]["param"] == param, (changes, answer.json())


# ---- addresses of webhooks


def holders(url: str) -> list[tuple[str, str, Any]]:
    """Everywhere an address can be given."""
    return [
        ("POST", "/v1/jobs", GOOD | {"webhook": {"url": url}}),
        ("POST", "/v1/responses", GOOD | {"background": True, "vigil": {"webhook": {"url": url}}}),
        ("POST", "/v1/webhook-endpoints", {"url": url}),
        ("PATCH", "/v1/webhook-endpoints/{endpoint_id}", {"url": url}),
    ]


@pytest.mark.parametrize("reason", FORBIDDEN)
async def test_forbidden_addresses_are_refused_wherever_one_can_be_given(target, reason):
    for url in FORBIDDEN[reason]:
        for method, path, sent in holders(url):
            answer = await target.send(method, path, json=sent)
            assert refusal(answer, 422) == (f"webhook_url_{reason}" if url else "validation_error")
            assert len(url) < 20 or url not in answer.text
        rows = (await target.send("POST", "/v1/jobs/batch", json={"jobs": [GOOD | {"webhook": {"url": url}}]})).json()
        assert [row["status"] for row in rows] == [422], url


# ---- ids, methods, queries, headers

TEMPLATES = [
    ("GET", "/v1/jobs/{}", None),
    ("GET", "/v1/jobs/{}/events", None),
    ("GET", "/v1/jobs/{}/audit", None),
    ("GET", "/v1/jobs/{}/deliveries", None),
    ("POST", "/v1/jobs/{}/cancel", None),
    ("POST", "/v1/jobs/{}/retry", None),
    ("POST", "/v1/jobs/{}/deliveries/msg_1/redeliver", None),
    ("GET", "/v1/webhook-endpoints/{}", None),
    ("PATCH", "/v1/webhook-endpoints/{}", {"state": "paused"}),
    ("DELETE", "/v1/webhook-endpoints/{}", None),
    ("POST", "/v1/webhook-endpoints/{}/rotate-secret", None),
    ("GET", "/v1/responses/{}", None),
    ("POST", "/v1/responses/{}/cancel", None),
    ("DELETE", "/v1/responses/{}", None),
]
IDS = [
    "x",
    "job_",
    "resp_",
    "we_",
    "job_x",
    "job_01hzzzzzzzzzzzzzzzzzzzzzzz",
    "JOB_01HZZZZZZZZZZZZZZZZZZZZZZZ",
    "job_01hzzzzzzzzzzzzzzzzzzzzzzz:extra",
    "job_" + "0" * 4000,
    "%00",
    "%0d%0aX-Evil:%201",
    "%ff%fe",
    "%E2%82%AC",
    "..%2f..%2fjobs",
    "job_*",
    "-1",
    "null",
    "%7B%7D",
    "';%20DROP%20TABLE%20jobs;--",
]


@pytest.mark.parametrize(("method", "template", "sent"), TEMPLATES)
async def test_ids_that_are_none_are_404(target, method, template, sent):
    for name in IDS:
        answer = await target.client.request(method, target.api.base_url + template.format(name), json=sent)
        assert refusal(answer, 404).endswith("not_found"), name


async def test_a_message_of_the_job_that_is_none_is_404(target):
    for name in IDS:
        path = f"{target.api.base_url}/v1/jobs/{target.job}/deliveries/{name}/redeliver"
        assert refusal(await target.client.post(path), 404).endswith("not_found"), name


async def test_methods_that_a_path_does_not_know_are_405_on_every_path(target):
    paths = (await target.client.get("/openapi.json")).json()["paths"]
    seen = 0
    for path, operations in paths.items():
        known = {method.upper() for method in operations}
        allowed = known | ({"HEAD"} if "GET" in known else set())
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} - known:
            answer = await target.client.request(method, path.replace("{", "").replace("}", ""))
            if answer.status_code == 400 and method == "BREW":
                continue  # no method of HTTP: the parser has refused it already
            if path in {"/v1/jobs/batch", "/v1/jobs/actions"} and method in {"GET", "DELETE"}:
                assert refusal(answer, 404) == "job_not_found"  # read as a job's id
                continue
            if path in {"/v1/responses/compact", "/v1/responses/input_tokens"} and method in {"GET", "DELETE"}:
                assert refusal(answer, 404) == "response_not_found"  # read as a response's id
                continue
            if (path, method) == ("/v1/models/probe", "GET"):
                assert refusal(answer, 404) == "model_not_found"  # read as a model's name
                continue
            assert refusal(answer, 405) == "method_not_allowed"
            assert {one.strip() for one in answer.headers["allow"].split(",")} == allowed, (method, path)
            seen += 1
    assert seen >= 100


async def test_paths_that_are_none_are_404(target):
    for path in ("/", "/v1", "/v2/jobs", "/v1/jobs/", "//v1/jobs", "/v1//jobs", "/V1/JOBS", "/v1/jobs/x/y", "/.env"):
        for method in ("GET", "POST", "DELETE"):
            assert refusal(await target.client.request(method, target.api.base_url + path), 404) == "not_found", path


QUERIES = [
    ("/v1/jobs", ("limit=0", "limit=1.0", "limit=%31%30%30%30", "cursor=..", "cursor=%ff", "status=DONE")),
    ("/v1/jobs", ("limit=٣", "created_after=1", "created_before=", "end_user=", "model=a&model=b", "Limit=1")),
    ("/v1/jobs/{job_id}", ("wait=60.1", "wait=inf", "wait=٣", "wait=0x1", "wait=1,5", "wait=%201", "wait=1;2", "a=1")),
    ("/v1/jobs/{job_id}/events", ("after=", "after=1.5", "after=99999999999", "offset=-0", "offset=x", "since=1")),
    ("/v1/jobs/{job_id}/deliveries", ("x=1",)),
    ("/v1/jobs/{job_id}/audit", ("x=1",)),
    ("/v1/audit", ("limit=101", "cursor=x", "cursor=LQ", "before=x", "after=2026-01-01", "job=1")),
    ("/v1/webhook-endpoints", ("limit=5",)),
    ("/v1/models", ("x=1", "=1")),
    ("/v1/status", ("verbose=1",)),
    ("/v1/responses/{job_id}", ("stream=yes", "stream=True", "starting_after=-1", "starting_after=x", "stream=%ff")),
]


@pytest.mark.parametrize(("path", "queries"), QUERIES)
async def test_queries_that_cant_be_used_are_422(target, path, queries):
    for query in queries:
        answer = await target.send("GET", f"{path}?{query}")
        if query == "end_user=":  # nobody's jobs, which is an answer
            assert answer.json()["data"] == []
            continue
        refusal(answer, 422)


KEYS = ["", "a b", "x" * 256, '"', '""', '"open', 'open"x"', '"a" "b"', "k\u00e9y", "\u4e2d"]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/batch", "/v1/responses"])
async def test_idempotency_keys_that_are_none_are_400(target, path):
    sent = {"jobs": [GOOD]} if path.endswith("batch") else GOOD | ({"background": True} if "resp" in path else {})
    for key in KEYS:
        if key == 'open"x"':
            continue  # odd, but visible ASCII
        headers = [(b"Idempotency-Key", key.encode())]
        answer = await target.send("POST", path, json=sent, headers=headers)
        assert refusal(answer, 400) == "invalid_idempotency_key", key
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    assert refusal(await target.send("POST", path, json=sent, headers=twice), 400) == "invalid_idempotency_key"
    if path.endswith("batch"):
        for key in ("", " ", "x" * 256, "a b", 5, [], "\u00e9"):
            jobs = {"jobs": [GOOD | {"idempotency_key": key}]}
            assert [row["status"] for row in (await target.send("POST", path, json=jobs)).json()] == [422], key


async def test_waits_that_cant_be_preferred_are_422(target):
    for wait in ("wait=61", "wait=-1", "wait=x", "wait=", "wait", "wait=1e1", "wait=nan", 'wait="x"', "a, wait=99; b"):
        refusal(await target.send("POST", "/v1/jobs", json=GOOD, headers={"Prefer": wait}), 422)


async def test_resume_points_that_cant_be_are_400(target):
    for value in ("x", "-1", "1.0", "1 2", "0x1", "99999999999", "\u00b2", "1,2", "null"):
        headers = [(b"Last-Event-ID", value.encode())]
        answer = await target.send("GET", "/v1/jobs/{job_id}/events", headers=headers)
        assert refusal(answer, 400) == "invalid_last_event_id", value


async def test_tags_that_are_none_match_nothing(target):
    for value in ("", "x", '"', "W/", '"x"', "'*'", "1.pending", '"1.pending', ",", ", ,"):
        answer = await target.send("GET", "/v1/jobs/{job_id}", headers={"If-None-Match": value})
        assert answer.status_code == 200, value


def test_there_are_enough_cases():
    bodies = len([*BODIES, *MAYBE_BODIES]) * (len(NOT_JSON) + len(BAD_JSON) + len(WRONG_SHAPES) + 13)
    fields = len(ENDPOINT_FIELDS) * 2 + len(FACE_FIELDS)
    others = len(TEMPLATES) * len(IDS) + sum(len(queries) for _, queries in QUERIES) + 3 * len(KEYS)
    assert bodies + fields + others >= 150
    assert sum(len(urls) for urls in FORBIDDEN.values()) >= 80
