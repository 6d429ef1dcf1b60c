"""What a request continues is measured before it is built: a short request may name long items, often or many."""

from __future__ import annotations

import asyncio
import json

import pytest
from api_server import submitted
from builders import VAULT
from measured_api import measured_api
from worst_requests import WorstRequest

from api.jobs.continued_size import ContinuedSize
from api.web.problems import Problem
from worker.jobs import events as ev
from worker.jobs.input_items import MAX_VALUES, KeptItem

MAX_TURN_S = 0.05


async def answered(client, worker, message):
    """The id of a job whose answer is this item, and the id by which requests name the item."""
    job_id = await submitted(client)
    await worker.start(job_id)
    finished = ev.AttemptFinished(outcome="completed", served_model="gpt-5.6-sol"), 1
    answer = {"output_text": "x", "output": [message], "refusal": None}
    await worker.commit(job_id, finished, (ev.Completed(served_model="gpt-5.6-sol"), 1), answer=answer)
    return job_id, f"msg_{job_id.removeprefix('job_')}_0"


def asking(path, **body):
    return WorstRequest("continue", "POST", path, {}, json.dumps({"model": "gpt-5.6-sol", **body}).encode())


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/input_tokens"])
async def test_a_long_item_that_is_named_very_often_is_refused_before_it_is_built(settings, redis, acme, worker, path):
    text = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "\N{BULLET}" * 100_000}],
    }
    _, name = await answered(acme, worker, text)
    request = asking(path, input=[{"type": "item_reference", "id": name}] * 900)
    with measured_api(settings, VAULT) as api:
        cost = await asyncio.to_thread(api.send, request)
    assert cost.status == 413
    assert cost.turn < MAX_TURN_S, cost


async def test_what_has_too_many_values_is_not_continued(settings, redis, acme, worker):
    numbers = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "x", "n": [1] * 120_000}],
    }
    job_id, name = await answered(acme, worker, numbers)
    sent = [{"type": "item_reference", "id": name}]
    for body in ({"input": sent}, {"input": "x", "previous_response_id": job_id.replace("job_", "resp_")}):
        answer = await acme.post("/v1/responses", json={"model": "gpt-5.6-sol", **body})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "input_too_large")
        assert "JSON values" in answer.json()["error"]["message"]


async def test_a_conversation_does_not_take_too_many_values(acme):
    made = (await acme.post("/v1/conversations", json={})).json()
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x", "n": [1] * 30_000}]}
    sent = [await acme.post(f"/v1/conversations/{made['id']}/items", json={"items": [item]}) for _ in range(4)]
    assert [answer.status_code for answer in sent] == [200, 200, 200, 413]
    assert sent[-1].json()["error"]["code"] == "input_too_large"


def test_items_count_at_each_place_and_answers_are_read_up_to_a_limit():
    one = [KeptItem("a", {"content": "x" * 100})]
    size = ContinuedSize("/input", 1, 1_000)
    size.add(one, 8)
    with pytest.raises(Problem) as refused:
        size.add(one)
    assert (refused.value.status, refused.value.code) == (413, "input_too_large")
    with pytest.raises(Problem):
        ContinuedSize("/input", 1, 10**9).add([KeptItem("a", {})], 1_001)
    with pytest.raises(Problem):
        ContinuedSize("/input", 1, 10**9).add([KeptItem("a", {"n": [1] * 1_000})], MAX_VALUES // 1_000)
    size = ContinuedSize("/input", 1, 1_000)
    size.add_stored(4_000)
    with pytest.raises(Problem):
        size.add_stored(1)
