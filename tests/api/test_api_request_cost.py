"""No request costs more than its size: every route, bodies and heads that are built to be the worst.

What is measured is CPU: of the loop's longest turn, in which nobody else is served, and of all threads. The sizes and
limits leave room for a slow machine: what is not linear takes seconds.
`python ops/bench/request_cost.py` prints the figures at the full size.
"""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from api_server import submitted
from builders import VAULT
from growth import grows_too_fast
from hypothesis import given, strategies as st
from measured_api import measured_api
from pydantic import ValidationError
from thorough import cases
from worst_requests import VALUES, WorstRequest, definitions_of, requests_for, target_of

from api.routes.webhook_endpoints import EndpointChange
from api.schema.requests import BatchItem, BatchRequest, EmptyBody, OfferAcceptance, Submit
from api.web.bounded_input import MAX_ERRORS
from api.web.problems import Problem
from api.web.strict_json import MAX_CONTAINERS_PER_MIB, parse_json
from api.web.validation import validate
from worker.jobs import events as ev

SIZE = 80 * 1024
MAX_TURN_S, MAX_TOTAL_S = 0.05, 0.5
IN_FIELDS = cases(1, len(VALUES))
_SERIOUS = ("empty strings", *VALUES)


@pytest.mark.timeout(900)  # it counts CPU time, of which a busy machine gives little
def test_no_request_to_any_route_takes_longer_than_its_size(settings, redis):
    settings = settings.model_copy(update={"max_body_bytes": 2**20})
    slow, sent = [], 0
    with measured_api(settings, VAULT) as api:
        named, ids = definitions_of(api.routes), api.ids()
        for route in api.routes:
            for request in requests_for(route, target_of(route, ids), SIZE, named, _SERIOUS[:IN_FIELDS]):
                cost = api.send(request)
                if cost.turn > MAX_TURN_S or cost.total > MAX_TOTAL_S:  # perhaps what only the first makes
                    cost = cost.least(api.send(request))
                sent += 1
                if cost.turn > MAX_TURN_S or cost.total > MAX_TOTAL_S or cost.status in {0, 500}:
                    slow.append((f"{route.method} {route.path}: {request.name}", cost))
    assert slow == []
    assert sent > 10 * len(api.routes)


def test_no_form_of_the_console_takes_longer_than_its_size(settings, redis):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    bodies = (
        b"input=" + b"%30" * 300_000,
        b"&" * 900_000,
        b"a=1&" * 200_000,
        b"csrf=" + b"+" * 900_000,
        b"=" * 900_000,
    )
    slow = []
    with measured_api(settings, VAULT) as api:
        for path in ("/console/try", "/console/login", "/console/logout"):
            for body in bodies:
                request = WorstRequest(body[:8].decode(), "POST", path, form, body)
                cost = api.send(request)
                if cost.turn > MAX_TURN_S or cost.total > MAX_TOTAL_S:
                    cost = cost.least(api.send(request))
                if cost.turn > MAX_TURN_S or cost.total > MAX_TOTAL_S or cost.status in {0, 500}:
                    slow.append((path, request.name, cost))
    assert slow == []


async def test_a_long_response_is_streamed_in_short_turns(settings, redis, acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    text = "word " * 100_000
    message = {"type": "message", "content": [{"type": "output_text", "text": text}]}
    finished = ev.AttemptFinished(outcome="completed", served_model="gpt-5.6-sol"), 1
    answer = {"output_text": text, "output": [message], "refusal": None}
    await worker.commit(job_id, finished, (ev.Completed(served_model="gpt-5.6-sol"), 1), answer=answer)
    request = WorstRequest("stream", "GET", f"/v1/responses/{job_id}?stream=true")
    with measured_api(settings, VAULT) as api:
        cost = await asyncio.to_thread(api.send, request, b"event: response.completed")
    assert cost.status == 200
    assert cost.turn < 0.6 * cost.total


async def test_a_list_of_long_outputs_is_read_in_short_turns(settings, redis, acme, worker):
    ids = [await submitted(acme) for _ in range(12)]
    for job_id in ids:
        await worker.start(job_id)
        await worker.complete(job_id, "\N{BULLET}" * 150_000)
    with measured_api(settings, VAULT) as api:
        cost = await asyncio.to_thread(api.send, WorstRequest("list", "GET", "/v1/jobs?limit=100"))
    assert cost.status == 200
    assert cost.turn < 0.5 * cost.total, cost


@pytest.mark.parametrize("name", VALUES)
def test_parsing_and_checking_grow_with_the_size(name):
    def refuse_or_take(raw: bytes) -> None:
        with contextlib.suppress(Problem):
            validate(Submit, parse_json(raw, 2**24))

    for around in (b"%s", b'{"model":"m","input":"x","policy":{"fallback":%s}}'):
        assert not grows_too_fast(refuse_or_take, lambda size, a=around: a % VALUES[name](size).encode(), 80 * 1024)


@pytest.mark.parametrize("field", ["/", "/policy", "/policy/on_delay", "/webhook", "/metadata"])
async def test_at_most_twenty_mistakes_are_named(acme, field):
    many = {f"k{i}": 1 for i in range(3_000)}
    body = {"model": "gpt-5.6-sol", "input": "x"}
    for name in reversed([step for step in field.split("/") if step]):
        many = {name: many}
    answer = await acme.post("/v1/jobs", json=body | many)
    assert answer.status_code == 422
    problem = answer.json()
    assert 1 <= len(problem["errors"]) <= MAX_ERRORS
    assert field == "/metadata" or problem["detail"].startswith(f"More than {MAX_ERRORS} fields")
    assert all(one["pointer"].startswith(field) for one in problem["errors"])


def test_a_body_of_too_many_lists_is_refused_and_brackets_in_text_are_not():
    def body(value: str) -> bytes:
        return b'{"model":"m","input":%s}' % value.encode()

    with pytest.raises(Problem) as refused:
        parse_json(body("[" + ",".join(["{}"] * (MAX_CONTAINERS_PER_MIB + 1)) + "]"))
    assert (refused.value.status, refused.value.code) == (422, "too_many_values")
    text = "[{" * MAX_CONTAINERS_PER_MIB
    assert parse_json(body(json.dumps(text)))["input"] == text


KEYS = st.sampled_from(["a", "\\u0061", "b", ":", "{", '\\"', ""])
LEAVES = ("1", "1e999", "-1e400", "9" * 400, "0.5", '"x:{"', '"\\\\"', '"\\ud800"', "null", "NaN", "x", '"')
TEXTS = st.recursive(
    st.sampled_from(
        ["1", "1e999", "-1e400", "9" * 400, "0.5", '"x:{"', '"\\\\"', '"\\ud800"', "null", "NaN", "x", '"']
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]"),
        st.lists(st.tuples(KEYS, inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"
        ),
    ),
    max_leaves=8,
)


@given(TEXTS)
def test_a_large_body_is_judged_as_a_small_one(text):
    def verdict(raw: bytes) -> object:
        try:
            return parse_json(raw)
        except Problem as problem:
            return problem.status, problem.code

    assert verdict(text.encode() + b" " * 70_000) == verdict(text.encode())


VALUE = st.one_of(
    st.none(), st.just(""), st.just("default"), st.just("gpt-5.6-sol"), st.just("job.completed"), st.integers(0, 3)
)
NAMES = ["model", "input", "policy", "fallback", "events", "webhook", "jobs", "x"]
ANYTHING = st.recursive(
    VALUE,
    lambda inner: st.one_of(
        st.builds(lambda item, count: [item] * count, inner, st.sampled_from([0, 1, 9, 10, 11, 12, 26, 27, 51, 60])),
        st.dictionaries(
            st.sampled_from(["model", "input", "policy", "fallback", "events", "webhook", "jobs", "x"]), inner
        ),
        st.builds(lambda item, count: {f"k{i}": item for i in range(count)}, inner, st.sampled_from([1, 16, 17, 40])),
    ),
    max_leaves=6,
)
FIELDS = st.fixed_dictionaries(
    {"model": st.just("m"), "input": st.just("x")},
    optional={"metadata": ANYTHING, "policy": ANYTHING, "webhook": ANYTHING, "events": ANYTHING, "params": ANYTHING},
)


@given(
    FIELDS | ANYTHING, st.sampled_from([Submit, BatchItem, BatchRequest, OfferAcceptance, EmptyBody, EndpointChange])
)
def test_what_is_cut_before_the_check_never_changes_the_verdict(sent, model):
    try:
        wanted = model.model_validate(sent)
    except ValidationError:
        with pytest.raises(Problem) as refused:
            validate(model, sent)
        assert 1 <= len(refused.value.errors) <= MAX_ERRORS
        assert len({tuple(one.items()) for one in refused.value.errors}) == len(refused.value.errors)
    else:
        assert validate(model, sent) == wanted
