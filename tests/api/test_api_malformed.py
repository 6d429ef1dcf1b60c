"""Nothing malformed gets in, nothing malformed gives a 500, and no refusal repeats what was sent."""

from __future__ import annotations

import asyncio
import json

import pytest
from api_server import running
from waiting import soon

from worker.store import keys

CANARY = "CANARY-7f3a"
GOOD = {"model": "gpt-5.6-sol", "input": CANARY}


def body(**changes: object) -> bytes:
    return json.dumps(GOOD | changes).encode()


def raw(text: str) -> bytes:
    """A good body with `text` in the place of an extra field's value."""
    return b'{"model":"gpt-5.6-sol","input":"CANARY-7f3a","params":{"x":%s}}' % text.encode()


NOT_JSON = [
    b"",
    b" ",
    b"x",
    b"{",
    b'{"model":"gpt-5.6-sol","input":"CANARY-7f3a"',
    b'{"model":"gpt-5.6-sol","input":"CANARY-7f3a"}x',
    b'{"model":"gpt-5.6-sol","input":"CANARY-7f3a",}',
    b"{'model':'gpt-5.6-sol'}",
    b'\xef\xbb\xbf{"model":"gpt-5.6-sol","input":"CANARY-7f3a"}',
    json.dumps(GOOD).encode("utf-16"),
    b'{"model":"gpt-5.6-sol","input":"\xff"}',
    b'{"model":"gpt-5.6-sol","input":"\xed\xa0\x80"}',
    b'{"model":"gpt-5.6-sol","input":"a\nb"}',
    raw("NaN"),
    raw("Infinity"),
    raw("-Infinity"),
    raw("01"),
    raw("1."),
    raw("+1"),
    raw("0x10"),
    raw("'a'"),
    raw("undefined"),
    raw("[1,]"),
    raw("/* c */ 1"),
]
"""400: the grammar of JSON does not hold."""

BAD_JSON = [
    (b'{"model":"gpt-5.6-sol","model":"gpt-5.6-sol","input":"CANARY-7f3a"}', "duplicate_key"),
    (raw('{"a":1,"a":2}'), "duplicate_key"),
    (raw('{"a":1,"\\u0061":2}'), "duplicate_key"),
    (raw('"\\ud800"'), "lone_surrogate"),
    (raw('"\\udfff x"'), "lone_surrogate"),
    (raw("[" * 300 + "]" * 300), "too_deep"),
    (raw('{"a":' * 250 + "1" + "}" * 250), "too_deep"),
    (raw("[" * 20_000 + "]" * 20_000), "too_deep"),
    (raw("1e400"), "number_out_of_range"),
    (raw("-1e9999"), "number_out_of_range"),
    (raw("9" * 5000), "number_out_of_range"),
    (raw("1" + "0" * 400 + ".5"), "number_out_of_range"),
]
"""422: it is JSON, but not soundly."""

BAD_FIELDS = [
    (b"[]", ""),
    (b"null", ""),
    (b'"x"', ""),
    (b"1", ""),
    (b"{}", "/model"),
    (b'{"model":"gpt-5.6-sol"}', "/input"),
    (b'{"input":"CANARY-7f3a"}', "/model"),
    (body(model=5), "/model"),
    (body(model=""), "/model"),
    (body(model=None), "/model"),
    (body(model="a b"), "/model"),
    (body(model="gpt\0"), "/model"),
    (body(model="x" * 201), "/model"),
    (body(model=["gpt-5.6-sol"]), "/model"),
    (body(input=""), "/input"),
    (body(input=[]), "/input"),
    (body(input={}), "/input"),
    (body(input=7), "/input"),
    (body(input=None), "/input"),
    (body(input=["text"]), "/input"),
    (body(input=[{"role": "user"}, None]), "/input"),
    (body(instructions=5), "/instructions"),
    (body(params=[]), "/params"),
    (body(params="{}"), "/params"),
    (body(params=None), "/params"),
    (body(end_user=""), "/end_user"),
    (body(end_user="x" * 201), "/end_user"),
    (body(end_user="a\0b"), "/end_user"),
    (body(end_user=17), "/end_user"),
    (body(unknown=1), "/unknown"),
    (body(status="completed"), "/status"),
    (body(id="job_x"), "/id"),
    (body(idempotency_key="k"), "/idempotency_key"),
    (body(policy=None), "/policy"),
    (body(policy=[]), "/policy"),
    (body(policy={"x": 1}), "/policy/x"),
    (body(policy={"on_delay": {"action": "guess"}}), "/policy/on_delay/action"),
    (body(policy={"on_delay": {"after_seconds": "45"}}), "/policy/on_delay/after_seconds"),
    (body(policy={"on_delay": {"after_seconds": -1}}), "/policy/on_delay/after_seconds"),
    (body(policy={"on_delay": {"after_seconds": True}}), "/policy/on_delay/after_seconds"),
    (body(policy={"on_delay": {"extra": 1}}), "/policy/on_delay/extra"),
    (body(policy={"on_delay": {"model": ""}}), "/policy/on_delay/model"),
    (body(policy={"fallback": "other"}), "/policy/fallback"),
    (body(policy={"fallback": [1]}), "/policy/fallback/0"),
    (body(policy={"fallback": None}), "/policy/fallback"),
    (body(policy={"require_model": "true"}), "/policy/require_model"),
    (body(policy={"require_model": 1}), "/policy/require_model"),
    (body(policy={"max_attempts": 0}), "/policy/max_attempts"),
    (body(policy={"max_attempts": 1.5}), "/policy/max_attempts"),
    (body(policy={"max_attempts": "5"}), "/policy/max_attempts"),
    (body(policy={"max_attempts": 10**30}), "/policy/max_attempts"),
    (body(policy={"queue_deadline_seconds": 0}), "/policy/queue_deadline_seconds"),
    (body(policy={"run_deadline_seconds": None}), "/policy/run_deadline_seconds"),
    (body(policy={"run_deadline_seconds": 10**400}), "/policy/run_deadline_seconds"),
    (body(policy={"max_cost_usd": "1.00"}), "/policy/max_cost_usd"),
    (body(policy={"max_cost_usd": -1}), "/policy/max_cost_usd"),
    (body(policy={"max_cost_usd": False}), "/policy/max_cost_usd"),
    (body(webhook="https://app.example"), "/webhook"),
    (body(webhook={}), "/webhook/url"),
    (body(webhook={"url": ""}), "/webhook/url"),
    (body(webhook={"url": "ftp://app.example/"}), "/webhook/url"),
    (body(webhook={"url": "https://"}), "/webhook/url"),
    (body(webhook={"url": "//app.example/"}), "/webhook/url"),
    (body(webhook={"url": "https://u:p@app.example/"}), "/webhook/url"),
    (body(webhook={"url": "https://@app.example/"}), "/webhook/url"),
    (body(webhook={"url": "https://app.example/\nx"}), "/webhook/url"),
    (body(webhook={"url": "https://app.example/a b"}), "/webhook/url"),
    (body(webhook={"url": "https://app.example\\@127.0.0.1/"}), "/webhook/url"),
    (body(webhook={"url": "https://app.example/#x"}), "/webhook/url"),
    (body(webhook={"url": "https://app.example:99999/"}), "/webhook/url"),
    (body(webhook={"url": "https://app.example/" + "x" * 2048}), "/webhook/url"),
    (body(webhook={"url": 5}), "/webhook/url"),
    (body(webhook={"url": "https://app.example/", "events": ["job.done"]}), "/webhook/events/0"),
    (body(webhook={"url": "https://app.example/", "events": ["job.output.delta"]}), "/webhook/events/0"),
    (body(webhook={"url": "https://app.example/", "events": []}), "/webhook/events"),
    (body(webhook={"url": "https://app.example/", "events": "job.completed"}), "/webhook/events"),
    (body(webhook={"url": "https://app.example/", "payload": "fat"}), "/webhook/payload"),
    (body(webhook={"url": "https://app.example/", "secret": "x"}), "/webhook/secret"),
    (body(not_before="tomorrow"), "/not_before"),
    (body(not_before="2026-06-30T12:00:00"), "/not_before"),
    (body(not_before="2026-02-30T12:00:00Z"), "/not_before"),
    (body(not_before="0001-01-01T00:00:00+14:00"), "/not_before"),
    (body(not_before="9999-12-31T23:59:59-14:00"), "/not_before"),
    (body(not_before=1782820800), "/not_before"),
    (body(priority="urgent"), "/priority"),
    (body(priority=1), "/priority"),
    (body(metadata=[]), "/metadata"),
    (body(metadata={"a": 1}), "/metadata/a"),
    (body(metadata={"a": None}), "/metadata/a"),
    (body(metadata={"a": {"b": "c"}}), "/metadata/a"),
    (body(metadata={"a": "x" * 513}), "/metadata/a"),
    (body(metadata={"k" * 65: "x"}), "/metadata/" + "k" * 64),
    (body(metadata={"": "x"}), "/metadata/"),
    (body(metadata={"a\0": "x"}), "/metadata/a\0"),
    (body(metadata={str(i): "x" for i in range(17)}), "/metadata"),
]
"""422: a field can't be used as sent, and the pointer says which."""

UNKNOWN_MODELS = [
    (body(model="gpt-9"), ["/model"]),
    (body(policy={"on_delay": {"model": "gpt-9"}}), ["/policy/on_delay/model"]),
    (body(policy={"fallback": ["gpt-5.6-luna", "gpt-9"]}), ["/policy/fallback/1"]),
    (body(model="x", policy={"fallback": ["y"]}), ["/model", "/policy/fallback/0"]),
]


async def refused(client, sent: bytes, redis, path: str = "/v1/jobs"):
    answer = await client.post(path, content=sent, headers={"Content-Type": "application/json"})
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "errors"}
    assert problem["status"] == answer.status_code
    assert CANARY not in answer.text
    assert await redis.zcard(keys.READY) + await redis.zcard(keys.LATER) == 0
    return answer.status_code, problem


async def test_what_is_not_json_is_400(acme, redis):
    for sent in NOT_JSON:
        status, problem = await refused(acme, sent, redis)
        assert (status, problem["code"]) == (400, "malformed_json"), sent


async def test_json_that_can_be_read_in_two_ways_is_422(acme, redis):
    for sent, code in BAD_JSON:
        status, problem = await refused(acme, sent, redis)
        assert (status, problem["code"]) == (422, code), sent[:100]


async def test_a_bad_field_is_422_and_pointed_at(acme, redis):
    for sent, pointer in BAD_FIELDS:
        status, problem = await refused(acme, sent, redis)
        assert status == 422, sent[:200]
        assert problem["code"] == "validation_error" or problem["code"].startswith("webhook_url_"), sent[:200]
        assert pointer in [fault["pointer"] for fault in problem["errors"]], (sent[:200], problem["errors"])
        assert sent == b"{}" or all(fault["pointer"].startswith(pointer) for fault in problem["errors"]), problem


async def test_an_unknown_model_is_422_and_the_known_ones_are_named(acme, redis):
    for sent, pointers in UNKNOWN_MODELS:
        status, problem = await refused(acme, sent, redis)
        assert (status, problem["code"]) == (422, "unknown_model"), sent
        assert [fault["pointer"] for fault in problem["errors"]] == pointers
        assert "gpt-5.6-luna, gpt-5.6-sol, gpt-5.6-terra" in problem["detail"]


async def test_malformed_batches(acme, redis):
    for sent in (b"[]", b"{}", b'{"jobs":{}}', b'{"jobs":[]}', b'{"jobs":[{}],"more":1}', b"null"):
        assert (await refused(acme, sent, redis, "/v1/jobs/batch"))[0] == 422, sent


async def test_a_bad_field_of_a_batch_is_pointed_at_within_its_job(acme):
    rows = (await acme.post("/v1/jobs/batch", json={"jobs": [GOOD | {"model": 5}]})).json()
    assert rows[0]["problem"]["errors"][0]["pointer"] == "/model"


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "application/json; charset=latin1",
    ],
)
async def test_what_does_not_say_it_is_json_is_415(acme, redis, kind):
    answer = await acme.post("/v1/jobs", content=body(), headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert await redis.zcard(keys.READY) == 0


async def test_no_content_type_and_an_encoded_body_are_415(acme):
    assert (await acme.post("/v1/jobs", content=body())).status_code == 415
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert (await acme.post("/v1/jobs", content=body(), headers=headers)).status_code == 415


async def test_a_body_that_says_it_is_too_long_is_413(acme, settings):
    answer = await acme.post("/v1/jobs", json=GOOD | {"input": "x" * settings.max_body_bytes})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_body_that_grows_too_long_is_413(acme, settings, redis):
    async def chunks():
        yield b'{"model":"gpt-5.6-sol","input":"'
        for _ in range(settings.max_body_bytes // 1000 + 1):
            yield b"x" * 1000
        yield b'"}'

    answer = await acme.post("/v1/jobs", content=chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert await redis.zcard(keys.READY) == 0


async def test_a_body_just_within_the_limit_is_taken(settings, redis, clock):
    async with running(settings, redis, clock) as api:
        client = await api.client()
        rest = settings.max_body_bytes - len(body(input=""))
        answer = await client.post(
            "/v1/jobs", content=body(input="x" * rest), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 202
        answer = await client.post(
            "/v1/jobs", content=body(input="x" * (rest + 1)), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 413


async def raw_answer(api, request: bytes) -> bytes:
    """What comes back over a bare socket."""
    reader, writer = await asyncio.open_connection(api.host, api.port)
    writer.write(request)
    await writer.drain()
    out = await soon(reader.read())
    writer.close()
    await writer.wait_closed()
    return out


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /v1/jobs HTTP/1.1",
        b"GET /v1/jobs/%00 HTTP/1.1",
        b"GET /v1/jobs/%ff%fe HTTP/1.1",
        b"GET /v1/jobs/..%2f..%2fetc HTTP/1.1",
        b"GET /v1/jobs?limit=%ff HTTP/1.1",
        b"POST /v1/jobs HTTP/1.1",
        b"GET /v1/jobs HTTP/1.0",
        b"BREW /v1/jobs HTTP/1.1",
        b"GET  HTTP/1.1",
        b"\x00\x01\x02",
    ],
)
async def test_bytes_over_a_socket_never_give_a_500(api, request_line):
    key = await api.key()
    head = request_line + b"\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + key.encode() + b"\r\n\r\n"
    status = int((await raw_answer(api, head)).split(b" ", 2)[1])
    assert status == 200 if request_line.startswith(b"GET /v1/jobs HTTP") else 400 <= status < 500


async def test_a_body_that_ends_early_creates_nothing(api, redis):
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n"
    head += b"Authorization: Bearer %s\r\n\r\n"
    _, writer = await asyncio.open_connection(api.host, api.port)
    writer.write(head % (await api.key()).encode() + body())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await (await api.client()).get("/healthz")).status_code == 200
    assert await redis.zcard(keys.READY) == 0


@pytest.mark.parametrize("host", ["", 'evil"<script>', "a b", "x" * 300])
async def test_a_strange_host_gives_relative_addresses(acme, host):
    answer = await acme.post("/v1/jobs", json=GOOD, headers={"Host": host})
    assert answer.json()["urls"]["self"] == f"/v1/jobs/{answer.json()['id']}"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=-1",
        "limit=1e1",
        "limit=",
        "limit=1&limit=2",
        "limit=99999999999999999999",
        "status=done",
        "status=",
        "cursor=x",
        "cursor=%00",
        "cursor=%F0%9F%98%80",
        "cursor=am9iX3g",
        "created_after=yesterday",
        "created_before=2026-01-01",
        "created_after=2026-01-01T00:00:00",
        "unknown=1",
        "model=%00",
        "end_user=%ff",
        "&".join(f"a{i}=1" for i in range(30)),
    ],
)
async def test_a_query_that_cant_be_used_is_422(acme, query):
    answer = await acme.get(f"/v1/jobs?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize(
    "query", ["wait=61", "wait=-1", "wait=x", "wait=", "wait=1e1", "wait=nan", "wait=1&wait=1", "x=1"]
)
async def test_a_wait_that_cant_be_is_422(acme, query):
    job_id = (await acme.post("/v1/jobs", json=GOOD)).json()["id"]
    assert (await acme.get(f"/v1/jobs/{job_id}?{query}")).status_code == 422


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("after=x", {}, 422),
        ("after=-1", {}, 422),
        ("offset=1.5", {}, 422),
        ("offset=99999999999", {}, 422),
        ("", {"Last-Event-ID": "x"}, 400),
        ("", {"Last-Event-ID": "-1"}, 400),
    ],
)
async def test_a_resume_point_that_cant_be(acme, query, headers, status):
    job_id = (await acme.post("/v1/jobs", json=GOOD)).json()["id"]
    assert (await acme.get(f"/v1/jobs/{job_id}/events?{query}", headers=headers)).status_code == status


def test_there_are_enough_cases():
    assert len(NOT_JSON) + len(BAD_JSON) + len(BAD_FIELDS) + len(UNKNOWN_MODELS) >= 60
