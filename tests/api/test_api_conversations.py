"""Conversations through OpenAI's SDK: their items, their turns one at a time, who may see them, how they are kept."""

from __future__ import annotations

import asyncio

import openai
import pytest
from api_server import AdjustableClock
from in_process import until
from openai_sdk import SOL, sdk_against_api

from api.runtime.context import build_context
from worker.store import keys
from worker.store.admission.app_quota import AppQuota
from worker.store.audit.acts import Actor
from worker.store.connection.pool import connect
from worker.store.envelope import MasterKeyring
from worker.store.jobs.commit_commands import RetentionTimes
from worker.store.lifecycle.key_rotation import KeyRotation
from worker.store.lifecycle.legal_holds import LegalHolds

HOLD = "[[sim: check_then_clear hold=50000]]"
SECRET = "the-secret-of-the-conversation"


@pytest.fixture
async def sdk(settings, redis, clock, valkey_url):
    async with sdk_against_api(settings, redis, clock, valkey_url, speed=200.0) as sdk:
        yield sdk


async def texts(sdk, conversation_id):
    items = sdk.client.conversations.items.list(conversation_id, order="asc", limit=2)
    return [(item.role, item.content[0].text) async for item in items]


async def refused(kind, code, call):
    with pytest.raises(kind) as raised:
        await call
    assert raised.value.code == code, raised.value
    return raised.value


async def value_of(redis, name):
    """What a key holds, whatever its type; None if it has just expired."""
    match await redis.type(name):
        case b"string":
            return await redis.get(name)
        case b"hash":
            return await redis.hgetall(name)
        case b"list":
            return await redis.lrange(name, 0, -1)
        case b"set":
            return await redis.smembers(name)
        case b"zset":
            return await redis.zrange(name, 0, -1)
        case b"stream":
            return await redis.xrange(name)


async def test_create_change_list_and_delete(sdk):
    api = sdk.client.conversations
    made = await api.create(items=[{"role": "user", "content": "One"}], metadata={"ticket": "A-17"})
    assert (made.object, made.metadata, made.id[:5]) == ("conversation", {"ticket": "A-17"}, "conv_")
    added = await api.items.create(
        made.id,
        items=[
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Two"}]},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        ],
    )
    assert [item.type for item in added.data] == ["message", "function_call_output"]
    assert (added.first_id, added.last_id) == (added.data[0].id, added.data[1].id)
    listed = [item async for item in api.items.list(made.id, limit=1, order="asc")]
    assert [item.id for item in listed[1:]] == [item.id for item in added.data]
    newest = await api.items.list(made.id)
    assert [item.id for item in newest.data] == [item.id for item in reversed(listed)]
    one = await api.items.retrieve(listed[1].id, conversation_id=made.id)
    assert one.content[0].text == "Two"
    assert (await api.items.delete(listed[1].id, conversation_id=made.id)).id == made.id
    await refused(openai.NotFoundError, "item_not_found", api.items.retrieve(listed[1].id, conversation_id=made.id))
    assert (await api.update(made.id, metadata={"a": "b"})).metadata == {"a": "b"}
    assert (await api.retrieve(made.id)).metadata == {"a": "b"}
    deleted = await api.delete(made.id)
    assert (deleted.deleted, deleted.object) == (True, "conversation.deleted")
    for call in (
        api.retrieve(made.id),
        api.delete(made.id),
        api.update(made.id, metadata={}),
        api.items.list(made.id),
        api.items.create(made.id, items=[{"role": "user", "content": "x"}]),
        sdk.client.responses.create(model=SOL, input="x", conversation=made.id),
    ):
        await refused(openai.NotFoundError, "conversation_not_found", call)


async def test_a_person_who_reads_items_of_another_keys_responses_is_on_record(sdk):
    made = await sdk.client.conversations.create(items=[{"role": "user", "content": "Before"}])
    one = await sdk.client.responses.create(model=SOL, input="One", conversation=made.id)
    record, key, _ = await sdk.api.apps.create_key("acme", ("read", "submit", "audit"), person="Ann")
    ann, items = await sdk.api.client(key=key), f"/v1/conversations/{made.id}/items"

    async def looks():
        found = (await ann.get("/v1/audit", params={"type": "content.read"})).json()["data"]
        return [(look["job_id"], look["data"]["kind"], look["data"]["by"]) for look in found]

    assert (await sdk.http.get(items)).status_code == 200
    assert (await ann.get(items, params={"order": "asc", "limit": 1})).status_code == 200
    assert await looks() == [], "the app itself, and an item of no job"
    job_id = one.vigil["job_id"]
    assert (await ann.get(f"{items}/{one.output[0].id}")).status_code == 200
    assert await looks() == [(job_id, "output", record.id)]
    for _ in range(2):
        assert len((await ann.get(items)).json()["data"]) == 3
    assert await looks() == [(job_id, "output", record.id), (job_id, "prompt", record.id)]


async def test_responses_add_their_items_in_order(sdk):
    made = await sdk.client.conversations.create(items=[{"role": "user", "content": "Before"}])
    one = await sdk.client.responses.create(model=SOL, input="One", conversation=made.id)
    stream = await sdk.client.responses.create(
        model=SOL, input=[{"role": "user", "content": "Two"}], conversation={"id": made.id}, stream=True
    )
    two = [event async for event in stream][-1].response
    assert one.conversation.id == two.conversation.id == made.id
    expected = [("user", "Before"), ("user", "One"), ("assistant", one.output_text)]
    expected += [("user", "Two"), ("assistant", two.output_text)]
    assert await texts(sdk, made.id) == expected
    items = [item.id async for item in sdk.client.conversations.items.list(made.id, order="asc")]
    assert [items[2], items[4]] == [one.output[0].id, two.output[0].id]
    seen = [item.id async for item in sdk.client.responses.input_items.list(two.id, order="asc")]
    assert seen == items[:4]
    reference = {"type": "item_reference", "id": one.output[0].id}
    await sdk.client.responses.create(model=SOL, input=[{"role": "user", "content": "x"}, reference])
    await sdk.client.responses.delete(one.id)
    assert await texts(sdk, made.id) == [expected[0], *expected[3:]]


async def test_one_turn_at_a_time_and_one_that_has_no_answer_adds_nothing(sdk):
    made = await sdk.client.conversations.create()
    create, locked = sdk.client.responses.create, (openai.BadRequestError, "conversation_locked")
    both = await asyncio.gather(
        *(create(model=SOL, input=f"{HOLD} {n}", conversation=made.id, background=True) for n in range(2)),
        return_exceptions=True,
    )
    (running,) = [one for one in both if not isinstance(one, Exception)]
    (error,) = [one for one in both if isinstance(one, Exception)]
    assert (error.status_code, error.code, error.param) == (400, "conversation_locked", "conversation")
    await refused(*locked, sdk.client.conversations.items.create(made.id, items=[{"role": "user", "content": "x"}]))
    answer = await sdk.http.post("/v1/jobs", json={"model": SOL, "input": "x", "params": {"conversation": made.id}})
    assert (answer.status_code, answer.json()["code"]) == (409, "conversation_locked")
    assert (await sdk.client.conversations.update(made.id, metadata={"a": "b"})).metadata == {"a": "b"}
    await sdk.client.responses.cancel(running.id)

    async def free():
        try:
            return await create(model=SOL, input="[[sim: prompt_block hold=0]] Bad", conversation=made.id)
        except openai.BadRequestError:
            return None

    assert (await until("the turn to end", free)).status == "failed"
    assert await texts(sdk, made.id) == []
    good = await create(model=SOL, input="Good", conversation=made.id)
    assert await texts(sdk, made.id) == [("user", "Good"), ("assistant", good.output_text)]


async def test_a_refused_submit_leaves_the_conversation_free(sdk, settings):
    made = await sdk.client.conversations.create()
    first = {"model": SOL, "input": "One", "conversation": made.id, "extra_headers": {"Idempotency-Key": "k"}}
    one = await sdk.client.responses.create(**first)
    assert (await sdk.client.responses.create(**first)).id == one.id
    await refused(
        openai.UnprocessableEntityError,
        "idempotency_key_reused",
        sdk.client.responses.create(**first | {"input": "Other"}),
    )
    assert (await sdk.http.post("/v1/quarantine", json={"end_user": "ann"})).status_code < 300
    await refused(
        openai.PermissionDeniedError,
        "end_user_quarantined",
        sdk.client.responses.create(model=SOL, input="x", conversation=made.id, safety_identifier="ann"),
    )
    assert (await sdk.client.responses.create(model=SOL, input="Two", conversation=made.id)).status == "completed"
    await refused(
        openai.BadRequestError,
        "unsupported_parameter",
        sdk.client.responses.create(model=SOL, input="x", conversation=made.id, store=False),
    )


async def test_no_app_sees_another_s_and_requests_are_bounded(sdk):
    made = await sdk.client.conversations.create(items=[{"role": "user", "content": "Mine"}])
    key = await sdk.api.key("other")
    async with openai.AsyncOpenAI(base_url=f"{sdk.api.base_url}/v1", api_key=key, max_retries=0) as other:
        for call in (
            other.conversations.retrieve(made.id),
            other.conversations.items.list(made.id),
            other.conversations.delete(made.id),
            other.responses.create(model=SOL, input="x", conversation=made.id),
        ):
            await refused(openai.NotFoundError, "conversation_not_found", call)
    many = [{"role": "user", "content": "x"}] * 21
    for body, path in (
        ({"items": many}, "/v1/conversations"),
        ({"items": many}, f"/v1/conversations/{made.id}/items"),
        ({"items": []}, f"/v1/conversations/{made.id}/items"),
        ({"items": ["x"]}, "/v1/conversations"),
        ({"metadata": {"a": 1}}, "/v1/conversations"),
    ):
        answer = await sdk.http.post(path, json=body)
        assert answer.status_code == 422, body
        assert set(answer.json()["error"]) >= {"message", "type", "code", "param"}
    private = {"role": "user", "content": [{"type": "input_image", "image_url": "http://169.254.169.254/"}]}
    await refused(openai.UnprocessableEntityError, "url_not_allowed", sdk.client.conversations.create(items=[private]))
    assert await texts(sdk, made.id) == [("user", "Mine")]


async def test_the_bytes_of_a_conversation_count_and_end_with_it(sdk, redis):
    before = int(await redis.hget(keys.content_sizes("acme"), "total") or 0)
    made = await sdk.client.conversations.create(items=[{"role": "user", "content": "x" * 10_000}])
    held = int(await redis.hget(keys.content_sizes("acme"), "total"))
    assert held - before > 10_000
    assert 0 < await redis.ttl(keys.conversation("acme", made.id)) <= 7 * 86_400
    await sdk.client.conversations.delete(made.id)
    assert int(await redis.hget(keys.content_sizes("acme"), "total")) == before


async def test_it_is_encrypted_at_rest_and_opens_with_a_new_master_key(settings, redis, clock, valkey_url):
    old, new = bytes([7]) * 32, bytes([8]) * 32
    sealed = connect(valkey_url, keyring=MasterKeyring([old]))
    async with sdk_against_api(settings, sealed, clock, valkey_url, speed=200.0) as sdk:
        made = await sdk.client.conversations.create(
            items=[{"role": "user", "content": SECRET}], metadata={"name": SECRET}
        )
        one = await sdk.client.responses.create(model=SOL, input=SECRET, conversation=made.id)
        await sdk.client.responses.create(model=SOL, input="Next", previous_response_id=one.id)
        assert len(await texts(sdk, made.id)) == 3
        async for name in redis.scan_iter():
            assert SECRET not in repr((name, await value_of(redis, name))), name
        assert SECRET in repr(await sdk.stage.jobs.load_input(one.id.replace("resp_", "job_")))
        rotated = connect(valkey_url, keyring=MasterKeyring([new, old]))
        assert (await KeyRotation(rotated).run())["unreadable"] == 0
        await rotated.aclose(close_connection_pool=True)
    after = connect(valkey_url, keyring=MasterKeyring([new]))
    async with sdk_against_api(settings, after, clock, valkey_url, speed=200.0, worker=False) as sdk:
        assert len(await texts(sdk, made.id)) == 3
        key = keys.conversation("acme", made.id)
        await after.hset(key, "doc", await after.hget(key, "doc") + b"x")
        answer = await sdk.http.get(f"/v1/conversations/{made.id}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "content_damaged")
    await sealed.aclose(close_connection_pool=True)
    await after.aclose(close_connection_pool=True)


async def test_a_turn_whose_process_died_before_its_job_was_made_ends_after_a_minute(settings, redis, valkey_url):
    clock = AdjustableClock()
    async with sdk_against_api(settings, redis, clock, valkey_url, speed=200.0) as sdk:
        made = await sdk.client.conversations.create()
        conversations = build_context(settings, redis, clock).conversations
        before = await conversations.ready("acme", made.id)
        await conversations.begin("acme", before, sdk.stage.jobs.new_id(), [], 60.0, AppQuota())
        create = sdk.client.responses.create
        await refused(
            openai.BadRequestError, "conversation_locked", create(model=SOL, input="One", conversation=made.id)
        )
        clock.ahead = 61.0
        assert (await create(model=SOL, input="Two", conversation=made.id)).status == "completed"


async def test_what_a_legal_hold_keeps_is_not_deleted(sdk, redis, clock):
    made = await sdk.client.conversations.create(items=[{"role": "user", "content": "Kept"}])
    one = await sdk.client.responses.create(model=SOL, input="One", conversation=made.id)
    holds = LegalHolds(redis, clock, RetentionTimes())
    await holds.place("app:acme", actor=Actor("key_ops"), why="a case")
    assert len(await texts(sdk, made.id)) == 3
    assert await redis.ttl(keys.conversation("acme", made.id)) == -1
    (item,) = (await sdk.client.conversations.items.list(made.id, limit=1)).data
    for call in (
        sdk.client.conversations.delete(made.id),
        sdk.client.conversations.items.delete(item.id, conversation_id=made.id),
        sdk.client.responses.delete(one.id),
    ):
        await refused(openai.ConflictError, "legal_hold", call)
    assert len(await texts(sdk, made.id)) == 3


async def test_an_answer_that_can_t_be_read_does_not_end_the_conversation(sdk, redis):
    made = await sdk.client.conversations.create(items=[{"role": "user", "content": "Before"}])
    one = await sdk.client.responses.create(model=SOL, input="One", conversation=made.id)
    await redis.set(keys.job_output(one.id.replace("resp_", "job_")), b"damaged")
    assert await texts(sdk, made.id) == [("user", "Before")]
    assert (await sdk.client.responses.create(model=SOL, input="Two", conversation=made.id)).status == "completed"


async def test_an_app_that_has_used_up_its_bytes_makes_no_more(sdk):
    await sdk.api.key("small")
    await sdk.api.apps.set_quota("small", AppQuota(None, 5_000), by="key_ops")
    key, items = await sdk.api.key("small"), [{"role": "user", "content": "x" * 3_000}]
    async with openai.AsyncOpenAI(base_url=f"{sdk.api.base_url}/v1", api_key=key, max_retries=0) as small:
        made = await small.conversations.create(items=items)
        await refused(openai.RateLimitError, "queue_full", small.conversations.create(items=items))
        await refused(openai.APIStatusError, "input_too_large", small.conversations.items.create(made.id, items=items))
        assert (await small.conversations.items.list(made.id)).data[0].content[0].text == "x" * 3_000
        await small.conversations.delete(made.id)
        await small.conversations.create(items=items)


async def test_a_response_that_may_not_be_deleted_stays_in_its_conversation(sdk, redis, clock, settings):
    made = await sdk.client.conversations.create()
    one = await sdk.client.responses.create(model=SOL, input="One", conversation=made.id)
    before = await texts(sdk, made.id)
    await LegalHolds(redis, clock, RetentionTimes(settings.result_ttl)).place(
        one.vigil["job_id"], actor=Actor("ann"), why="case 1"
    )
    await refused(openai.ConflictError, "legal_hold", sdk.client.responses.delete(one.id))
    assert await texts(sdk, made.id) == before
    assert before
