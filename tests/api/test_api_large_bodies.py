"""Bodies that are long because of images and files: taken, kept in pieces, given to the model whole; others are not."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import tracemalloc

import pytest
from api_server import Worker, running
from builders import VAULT
from in_process import Stage
from measured_api import measured_api
from openai import AsyncOpenAI
from raw_client import RawClient
from waiting import LIMIT
from worst_requests import WorstRequest

from worker.audit.report import Report
from worker.jobs.errors import ContentNotSealed
from worker.store import keys
from worker.store.admission.app_quota import AppQuota
from worker.store.admission.rate_limit import RateLimit
from worker.store.connection.kept_secrets import DIGEST, KeptSecrets, input_digest
from worker.store.connection.pool import connect
from worker.store.envelope import MasterKeyring
from worker.store.jobs.repository import Jobs
from worker.store.lifecycle.record_verification import RecordVerification
from worker.store.lifecycle.sealing import StoreSealing

SOL = "gpt-5.6-sol"
PICTURE = "data:image/png;base64," + base64.b64encode(os.urandom(1_500_000)).decode()
FILE = base64.b64encode(os.urandom(300_000)).decode()
ITEMS = [
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "What is this?"},
            {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
            {"type": "input_file", "filename": "a.pdf", "file_data": FILE},
        ],
    }
]
CHAT = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": PICTURE}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": FILE}},
        ],
    }
]


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"max_body_bytes": None})


def strings(value):
    """All long strings of a value."""
    if isinstance(value, str):
        return [value] if len(value) > 1000 else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inner for text in strings(one)]


@pytest.mark.parametrize("api_name", ["jobs", "responses", "chat"])
async def test_a_picture_reaches_the_model_as_it_was_sent(settings, redis, clock, valkey_url, api_name):
    async with running(settings, redis, clock) as api, Stage(redis, valkey_url) as stage:
        await stage.worker()
        given = {"base_url": f"{api.base_url}/v1", "api_key": await api.key(), "max_retries": 0, "timeout": LIMIT}
        async with AsyncOpenAI(**given) as client:
            if api_name == "responses":
                response = await client.responses.create(model=SOL, input=ITEMS)
                assert (await client.responses.retrieve(response.id)).output_text == response.output_text != ""
                job_id = response.vigil["job_id"]
            elif api_name == "chat":
                completion = await client.chat.completions.create(model=SOL, messages=CHAT)
                job_id = completion.vigil["job_id"]
            else:
                http = await api.client(key=given["api_key"])
                answer = await http.post("/v1/jobs", json={"model": SOL, "input": ITEMS}, headers={"Prefer": "wait=60"})
                job_id = answer.json()["id"]
        job = await stage.settled(job_id)
        assert job.status == "completed"
        stored = await stage.jobs.load_input(job_id)
        assert strings(stored) == [PICTURE, FILE]
        short = await stage.jobs.load_request(job_id)
        assert strings(short) == []
        assert {**short, "input": 0} == {**stored, "input": 0}
        secret = await KeptSecrets(redis, clock).get(DIGEST)
        assert job.input_digest == input_digest(secret, {"model": SOL, **stored})
        assert not [name async for name in redis.scan_iter("vigil:upload:*")]
        held = int((await redis.hget(keys.content_sizes("acme"), job_id)).split()[0])
        assert held > len(PICTURE) + len(FILE)


async def test_an_idempotency_key_and_a_retry_know_a_picture_again(api, redis):
    client = await api.client()
    body = {"model": SOL, "input": ITEMS}
    first, again = [await client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert (first.status_code, again.json()["id"]) == (202, first.json()["id"])
    other = [{**ITEMS[0], "content": [*ITEMS[0]["content"][:1], {"type": "input_image", "image_url": PICTURE[:-4]}]}]
    refused = await client.post("/v1/jobs", json={**body, "input": other}, headers={"Idempotency-Key": "k"})
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert not [name async for name in redis.scan_iter("vigil:upload:*")]


@pytest.mark.parametrize(
    "body",
    [
        {"model": SOL, "input": "x " * 2**20},
        {"model": SOL, "input": PICTURE},
        {"model": SOL, "input": [{"role": "user", "content": PICTURE}]},
        {"model": SOL, "input": ITEMS, "instructions": "x " * 2**20},
    ],
)
async def test_long_text_is_refused_with_the_name_of_the_setting(api, body):
    answer = await (await api.client()).post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert "VIGIL_MAX_BODY_BYTES" in answer.json()["detail"]
    key = await api.key()
    async with AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key=key, max_retries=0) as sdk:
        with pytest.raises(Exception, match="VIGIL_MAX_BODY_BYTES"):
            await sdk.responses.create(**body)


async def test_what_is_longer_than_all_is_refused_unread(api):
    key = await api.key()
    head = f"POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    client = await RawClient(api).send(f"{head}content-length: {32 * 2**20 + 1}\r\n\r\n{{".encode())
    assert b"VIGIL_MAX_BODY_BYTES" in await client.until(b"}")
    client.close()


async def test_other_routes_and_an_address_in_a_long_string_have_the_old_rules(api):
    client = await api.client()
    hidden = [{"role": "user", "content": [{"type": "input_image", "image_url": "http://10.0.0.1/" + "a" * 2**17}]}]
    answer = await client.post("/v1/jobs", json={"model": SOL, "input": [*hidden, *ITEMS]})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "url_not_allowed")
    batch = await client.post("/v1/jobs/batch", json={"jobs": [{"model": SOL, "input": ITEMS}]})
    assert batch.status_code == 413


async def test_what_a_refused_job_has_uploaded_is_deleted(settings, redis, clock):
    async with running(settings.model_copy(update={"app_max_waiting": 1}), redis, clock) as api:
        client = await api.client()
        body = {"model": SOL, "input": ITEMS}
        answers = [await client.post("/v1/jobs", json=body) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 429]
        assert not [name async for name in redis.scan_iter("vigil:upload:*")]


async def test_a_chunked_body_that_waits_for_room_is_read_in_the_end(settings, redis, clock):
    async with running(settings.model_copy(update={"body_memory_bytes": 2**20}), redis, clock) as api:
        client = await api.client()
        raw = json.dumps({"model": SOL, "input": ITEMS}).encode()

        async def chunks():
            for at in range(0, len(raw), 100_000):
                yield raw[at : at + 100_000]

        headers = {"Content-Type": "application/json"}
        sent = [client.post("/v1/jobs", content=chunks(), headers=headers) for _ in range(4)]
        assert [answer.status_code for answer in await asyncio.gather(*sent)] == [202] * 4


@pytest.mark.parametrize("keyring", [None, MasterKeyring([b"k" * 32])])
async def test_a_job_with_pictures_runs_again_piece_by_piece(settings, valkey_url, redis, clock, keyring):
    sealed = connect(valkey_url, keyring=keyring)
    try:
        async with running(settings, sealed, clock, keys_in=sealed) as api:
            client, jobs, secret = await api.client(), Jobs(sealed, clock), await KeptSecrets(sealed, clock).get(DIGEST)
            old = (await client.post("/v1/jobs", json={"model": SOL, "input": ITEMS})).json()["id"]
            await client.post(f"/v1/jobs/{old}/cancel")
            new = (await client.post(f"/v1/jobs/{old}/rerun")).json()
            assert new["rerun_of"] == old
            assert await jobs.load_input(new["id"]) == await jobs.load_input(old)
            stored = await jobs.load(new["id"])
            assert stored.job.input_digest == input_digest(secret, {"model": SOL, **await jobs.load_input(new["id"])})
            kept = await redis.strlen(keys.job_input(new["id"]))
            assert int((await redis.hget(keys.content_sizes("acme"), new["id"])).split()[0]) >= kept
            raw = await redis.get(keys.job_input(old))
            await redis.set(keys.job_input(old), raw[:1] + raw[900_000:])
            damaged = await client.post(f"/v1/jobs/{old}/rerun")
            assert damaged.status_code == 410, damaged.text
            assert await redis.zcard(keys.index("acme")) == 2
            assert not [name async for name in redis.scan_iter("vigil:upload:*")]
    finally:
        await sealed.aclose()


@pytest.mark.parametrize("limit", ["rate", "bytes"])
async def test_what_would_be_refused_is_not_copied(settings, redis, clock, limit):
    async with running(settings, redis, clock) as api:
        client = await api.client()
        old = (await client.post("/v1/jobs", json={"model": SOL, "input": ITEMS})).json()["id"]
        await client.post(f"/v1/jobs/{old}/cancel")
        if limit == "rate":
            await api.apps.set_rate("acme", RateLimit(1), by="key_ops")
            client = await api.client()
            assert (await client.post("/v1/jobs", json={"model": SOL, "input": "x"})).status_code == 202
        else:
            await api.apps.set_quota("acme", AppQuota(None, 3_000_000), by="key_ops")
            client = await api.client()
        await redis.config_resetstat()
        refused = await client.post(f"/v1/jobs/{old}/rerun")
        assert refused.status_code == 429, refused.text
        assert "cmdstat_append" not in await redis.info("commandstats")
        many = await client.post("/v1/jobs/actions", json={"action": "rerun", "ids": [old]})
        assert many.status_code in {200, 429}


async def test_runs_again_of_long_inputs_block_nobody_and_take_little_memory(settings, redis, clock):
    text = "data:image/png;base64," + "A" * (20 * 2**20)
    items = [{"role": "user", "content": [{"type": "input_image", "image_url": text}]}]
    async with running(settings, redis, clock) as api:
        client = await api.client()
        old = (await client.post("/v1/jobs", json={"model": SOL, "input": items})).json()["id"]
        await client.post(f"/v1/jobs/{old}/cancel")
    request = WorstRequest("rerun", "POST", f"/v1/jobs/{old}/rerun")
    with measured_api(settings, VAULT) as measured:
        tracemalloc.start()
        try:
            cost = await asyncio.to_thread(measured.send, request)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert cost.status == 202
    assert cost.turn < 0.05, cost
    assert peak < 12 * 2**20, peak


async def test_slow_bodies_of_one_app_keep_none_of_another_waiting(api, redis):
    key, other = await api.key("slow"), await api.client("other")
    lines = ["POST /v1/jobs HTTP/1.1", "host: x", f"authorization: Bearer {key}", "content-type: application/json"]
    head = "\r\n".join([*lines, f"content-length: {30 * 2**20}", "", '{"model": "'])
    slow = [await RawClient(api).send(head.encode()) for _ in range(10)]
    try:
        async with asyncio.timeout(15):  # a slow body is refused after 30 s
            assert (await other.post("/v1/jobs", json={"model": SOL, "input": ITEMS})).status_code == 202
    finally:
        for client in slow:
            client.socket.close()


async def test_pictures_are_sealed_verified_and_found_damaged(settings, valkey_url, redis, clock):
    sealed = connect(valkey_url, keyring=MasterKeyring([b"k" * 32]))
    try:
        async with running(settings, sealed, clock, keys_in=sealed) as api:
            client = await api.client()
            job_id = (await client.post("/v1/jobs", json={"model": SOL, "input": ITEMS})).json()["id"]
        raw = await redis.get(keys.job_input(job_id))
        assert PICTURE[100:140].encode() not in raw
        assert strings(await Jobs(sealed, clock).load_input(job_id)) == [PICTURE, FILE]
        report = Report()
        await RecordVerification(sealed, clock).verify(report)
        assert report.good, report.faults
        for position in (5, len(raw) // 2, len(raw) - 100):
            changed = bytearray(raw)
            changed[position] ^= 1
            await redis.set(keys.job_input(job_id), bytes(changed))
            with pytest.raises(Exception, match="be opened: it was changed"):
                await Jobs(sealed, clock).load_input(job_id)
        await redis.set(keys.job_input(job_id), raw[:1] + raw[1_048_000:])
        with pytest.raises(Exception, match="be opened: it was changed"):
            await Jobs(sealed, clock).load_input(job_id)
    finally:
        await sealed.aclose()


async def test_plain_pictures_of_a_job_that_is_over_are_sealed_by_the_upgrade(settings, valkey_url, redis, clock):
    plain = connect(valkey_url)
    worker = Worker(plain, Jobs(plain, clock), clock)
    async with running(settings, plain, clock) as api:
        client = await api.client()
        job_id = (await client.post("/v1/jobs", json={"model": SOL, "input": ITEMS})).json()["id"]
        await worker.start(job_id)
        await worker.complete(job_id)
    assert PICTURE[100:140].encode() in await redis.get(keys.job_input(job_id))
    keyring = MasterKeyring([b"k" * 32])
    strict, lenient = (
        connect(valkey_url, keyring=ring) for ring in (keyring, MasterKeyring([b"k" * 32], accept_plain=True))
    )
    assert strings(await Jobs(lenient, clock).load_input(job_id)) == [PICTURE, FILE]
    with pytest.raises(ContentNotSealed):
        await Jobs(strict, clock).load_input(job_id)
    await StoreSealing(lenient, clock).run()
    assert strings(await Jobs(strict, clock).load_input(job_id)) == [PICTURE, FILE]
    assert PICTURE[100:140].encode() not in await redis.get(keys.job_input(job_id))
    for client in (plain, strict, lenient):
        await client.aclose()


async def test_a_picture_can_be_continued_and_is_null_where_the_input_is_shown(settings, redis, clock, valkey_url):
    async with running(settings, redis, clock) as api, Stage(redis, valkey_url) as stage:
        await stage.worker()
        given = {"base_url": f"{api.base_url}/v1", "api_key": await api.key(), "max_retries": 0, "timeout": LIMIT}
        async with AsyncOpenAI(**given) as client:
            first = await client.responses.create(model=SOL, input=ITEMS)
            items = [item async for item in client.responses.input_items.list(first.id)]
            assert [part.type for part in items[0].content] == ["input_text", "input_image", "input_file"]
            assert items[0].content[1].image_url is None
            second = await client.responses.create(model=SOL, input="And this?", previous_response_id=first.id)
            third = await client.responses.create(model=SOL, input=ITEMS[:1], previous_response_id=second.id)
        stored = await stage.jobs.load_input(second.vigil["job_id"])
        assert strings(stored) == [PICTURE, FILE]
        assert strings(await stage.jobs.load_input(third.vigil["job_id"])) == [PICTURE, FILE, PICTURE, FILE]


async def test_a_rerun_keeps_pictures_in_pieces_and_what_was_continued(settings, redis, clock, valkey_url):
    encrypted = await connect(valkey_url, keyring=MasterKeyring([bytes(range(32))]))
    async with running(settings, encrypted, clock) as api, Stage(encrypted, valkey_url) as stage:
        http = await api.client(key=await api.key())
        worker, jobs = Worker(encrypted, stage.jobs, clock), stage.jobs

        async def ended(**given):
            answer = await http.post("/v1/responses", json={"model": SOL, "background": True, **given})
            job_id = answer.headers["x-vigil-job"]
            await worker.start(job_id)
            await (worker.fail if given["input"] != "Hi" else worker.complete)(job_id)
            return job_id

        old = await ended(input=ITEMS)
        answer = await http.post(f"/v1/jobs/{old}/rerun")
        assert answer.status_code == 202, answer.text
        new = answer.json()["id"]
        assert await jobs.load_input(new) == await jobs.load_input(old)
        assert strings(await jobs.load_input(new)) == [PICTURE, FILE]
        assert strings(await jobs.load_request(new)) == [], "views of the job read no picture"
        assert PICTURE[100:140].encode() not in await encrypted.get(keys.job_input(new))
        assert not [key async for key in encrypted.scan_iter(keys.upload("*"))]

        first = await ended(input="Hi")
        second = await ended(input="And?", previous_response_id=f"resp_{first.removeprefix('job_')}")
        again = (await http.post(f"/v1/jobs/{second}/rerun")).json()["id"].removeprefix("job_")
        response = (await http.get(f"/v1/responses/resp_{again}")).json()
        assert response["previous_response_id"] == f"resp_{first.removeprefix('job_')}"
        names = [name.removeprefix("job_") for name in (first, again)]
        listed = [await http.get(f"/v1/responses/resp_{name}/input_items") for name in names]
        assert listed[0].json()["data"][0] == listed[1].json()["data"][-1], "an earlier item keeps its id"
    await encrypted.aclose()
