"""The page of webhooks: endpoints, messages with each try, sending again, secrets; nothing of another app."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from html import unescape

import pytest
from console_server import submitted
from in_process import until
from webhook_messages import CANARY, Hooks

from worker.clock import Clock
from worker.store.webhooks.endpoints import Endpoints
from worker.store.webhooks.outbox import Outbox


@pytest.fixture
async def hooks(redis, valkey_url) -> AsyncIterator[Hooks]:
    async with Hooks(redis, valkey_url) as hooks:
        yield hooks


async def test_an_empty_page_says_how_to_begin(console):
    visitor = await console.logged_in()
    text = (await visitor.get("/console/webhooks")).text
    assert "no standing endpoint" in text
    assert "/v1/webhook-endpoints" in text
    assert "No message was sent yet" in text


async def test_messages_show_each_try_and_what_a_receiver_says_is_text(console, hooks):
    visitor = await console.logged_in()
    hooks.receiver.says(500, text=CANARY)
    job_id = await hooks.completed()
    await hooks.tried(1)
    text = (await visitor.get("/console/webhooks")).text
    assert job_id in text
    assert "500" in text
    assert CANARY in unescape(text)
    assert CANARY not in text
    assert "Last try failed 1" in text
    assert "No message has failed" not in (await visitor.get("/console/webhooks?failed=1")).text


async def test_one_message_and_all_that_failed_are_sent_again(console, hooks):
    visitor = await console.logged_in()
    hooks.receiver.says(500)
    await hooks.completed(3)
    messages = await hooks.tried(3)
    hooks.receiver.says(204)
    done = await visitor.act("/console/webhooks/redeliver", message=messages[0].id)
    assert (done.status_code, done.headers["location"]) == (303, "/console/webhooks?notice=redelivered_one")
    await hooks.failed(2)
    done = await visitor.act("/console/webhooks/redeliver-failed", since="day")
    assert done.headers["location"] == "/console/webhooks?notice=redelivered&n=2"
    await hooks.failed(0)
    assert "2 messages are sent again" in (await visitor.get("/console/webhooks?notice=redelivered&n=2")).text


async def test_another_apps_messages_and_endpoints_do_not_exist(console, hooks, redis):
    hooks.receiver.says(500)
    job_id = await hooks.completed()
    (message,) = await hooks.tried(1)
    made = await Endpoints(redis, Clock()).create(
        "acme", url="https://a.example", events=("job.completed",), payload="thin", description="", secret="whsec_x"
    )
    other = await console.logged_in("other")
    assert job_id not in (await other.get("/console/webhooks")).text
    assert (await other.act("/console/webhooks/redeliver", message=message.id)).status_code == 404
    for act, form in (("rotate", {}), ("state", {"state": "paused"})):
        assert (await other.act(f"/console/webhooks/endpoints/{made.id}/{act}", **form)).status_code == 404
    assert (await other.act("/console/webhooks/redeliver-failed", since="all")).headers["location"].endswith("n=0")
    (_, receipts), *_ = await Outbox(redis, Clock()).of_job(job_id)
    assert len(receipts) == 1


async def test_a_new_secret_is_shown_once_and_an_endpoint_is_paused(console, redis):
    visitor = await console.logged_in()
    store = Endpoints(redis, Clock())
    made = await store.create(
        "acme",
        url="https://a.example/<b>",
        events=("job.completed",),
        payload="thin",
        description=CANARY,
        secret="whsec_x",
    )
    page = (await visitor.get("/console/webhooks")).text
    assert "https://a.example/&lt;b&gt;" in page
    assert CANARY not in page
    answer = await visitor.act(f"/console/webhooks/endpoints/{made.id}/rotate")
    (secret,) = set(re.findall(r"whsec_[A-Za-z0-9+/=]+", answer.text))
    found = await store.find("acme", made.id)
    assert [one.text for one in found.secrets] == [secret, "whsec_x"]
    assert answer.headers["cache-control"] == "no-store"
    assert secret not in (await visitor.get("/console/webhooks")).text
    await visitor.act(f"/console/webhooks/endpoints/{made.id}/state", state="paused")
    assert (await store.find("acme", made.id)).state == "paused"
    assert (await visitor.act(f"/console/webhooks/endpoints/{made.id}/state", state="gone")).status_code == 422


async def test_a_key_that_only_reads_sees_messages_and_no_buttons(console, hooks):
    hooks.receiver.says(500)
    await hooks.completed()
    (message,) = await hooks.tried(1)
    reader = await console.logged_in("acme", ("read",))
    text = (await reader.get("/console/webhooks")).text
    assert message.job_id in text
    assert "Send again" not in text
    assert "Endpoints" not in text
    for path in ("redeliver", "redeliver-failed"):
        assert (await reader.act(f"/console/webhooks/{path}", message=message.id)).status_code == 403


async def test_pages_of_a_full_log_are_quick(console, hooks, redis):
    hooks.receiver.says(500)
    await hooks.completed()
    (message,) = await hooks.tried(1)
    await hooks.fill(message, 10_000)
    visitor = await console.logged_in()
    took = []
    path = "/console/webhooks?failed=1"
    for _ in range(4):
        began = time.thread_time()  # of client and server, and of nobody else on this machine
        text = (await visitor.get(path)).text
        took.append(time.thread_time() - began)
        path = re.search(r'rel="next" href="([^"]+)"', text)[1].replace("&amp;", "&")
    assert min(took) < 0.1, took


async def test_a_submit_without_a_webhook_makes_no_message(console):
    key = (await console.key())[1]
    job_id = await submitted(console, key)
    visitor = await console.logged_in()
    await until("the page", lambda: _answers(visitor))
    assert job_id not in (await visitor.get("/console/webhooks")).text


async def _answers(visitor) -> bool:
    return (await visitor.get("/console/webhooks")).status_code == 200
