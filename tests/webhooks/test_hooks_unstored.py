"""An answer that is not to be stored, delivered by webhook; and the addresses in messages behind a prefix."""

from __future__ import annotations

import json

import pytest
from builders import ERROR, FAILED, life
from in_process import until

from worker.settings import Settings
from worker.store import keys
from worker.webhooks.message import WebhookEvent, base_of, body_of, shows_answer


async def test_an_answer_that_was_delivered_starts_its_last_minute(post, receiver, redis):
    post.worker()
    job_id = await post.submit(receiver.url, payload="full", store=False)
    receiver.says(500)
    await post.complete(job_id)
    await receiver.gets(1)
    await post.message(job_id, "pending", tries=1)
    assert await _left(redis, post.clock, job_id) > 3000, "nobody has taken it"


@pytest.mark.parametrize(("payload", "minute"), [("full", True), ("thin", False), ("openai", False)])
async def test_only_what_shows_the_answer_counts_as_read(post, receiver, redis, payload, minute):
    post.worker()
    job_id = await post.submit(receiver.url, payload=payload, store=False)
    await post.complete(job_id)
    await post.message(job_id, "delivered")
    if minute:

        async def sooner() -> bool:
            return await _left(redis, post.clock, job_id) < 100

        await until("the minute to begin", sooner)
    else:
        assert await _left(redis, post.clock, job_id) > 3000


async def _left(redis, clock, job_id) -> float:
    return float(await redis.zscore(keys.ERASURE_DUE, job_id)) / 1000 - clock.now().timestamp()


async def test_addresses_in_messages_have_the_prefix(post, receiver):
    post.worker(root_path="/api/vigil")
    job_id = await post.submit(receiver.url)
    await post.endpoint(receiver.url, payload="full")
    await post.complete(job_id)
    for got in await receiver.gets(2):
        assert got.json["data"]["urls"]["self"] == f"/api/vigil/v1/jobs/{job_id}"


async def test_with_a_public_address_the_addresses_in_messages_are_absolute(post, receiver):
    post.worker(public_url="https://vigil.example/api/", root_path="/ignored")
    job_id = await post.submit(receiver.url)
    await post.complete(job_id)
    urls = (await receiver.gets(1))[0].json["data"]["urls"]
    assert urls["self"] == f"https://vigil.example/api/v1/jobs/{job_id}"


@pytest.mark.parametrize(
    ("public", "private", "base"),
    [
        ("https://v.example", {"base": "http://10.0.0.1:8700"}, "https://v.example"),
        (None, {"base": "http://10.0.0.1:8700/x"}, "http://10.0.0.1:8700/x"),
        (None, {"base": 7}, "/root"),
        (None, {}, "/root"),
    ],
)
def test_the_start_of_addresses(public, private, base):
    assert base_of(public, "/root", private) == base


@pytest.mark.parametrize("value", ["vigil.example", "ftp://x", "https://u:p@x", "https://x/?a", "https://x/a b", ""])
def test_a_public_address_is_a_whole_address(value):
    with pytest.raises(ValueError, match="must be an address"):
        Settings(_env_file=None, public_url=value)


def test_a_thin_message_of_a_failed_job_says_why_and_what_to_do():
    job, trail = life(FAILED)
    event = WebhookEvent("job.failed", trail[-1].seq, trail[-1].at)
    body = json.loads(body_of("thin", "msg_1", job, event, {}, None) or "")
    assert (body["data"]["error"]["code"], body["data"]["error"]["advice"]) == (ERROR.code, ERROR.advice)


def test_what_is_no_message_shows_no_answer():
    for body in ("", "[]", "{}", '{"data":null}', '{"data":[]}', '{"data":{"status":"failed","output":[]}}'):
        assert not shows_answer(body)
