"""One rule on both APIs: no app opens another's state at the provider, nor sends it into a private network."""

from __future__ import annotations

import asyncio
import time

import pytest
from api_server import running, submitted
from openai import AsyncOpenAI, BadRequestError, UnprocessableEntityError

from api.runtime.name_check import MAX_NAMES
from worker.store import keys

MCP = {"type": "mcp", "server_label": "x"}


def image(url):
    return [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]


NAMES = [
    ({"prompt_state": {"previous_response_id": "resp_1"}}, "prompt_state.previous_response_id"),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "tools[0].vector_store_ids[0]"),
    ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, "tools[0].container"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
        "input[0].content[0].file_id",
    ),
]


@pytest.fixture
async def sdk(api):
    async with AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key=await api.key(), max_retries=0) as client:
        yield client


def native(fields):
    """The same request on the native API."""
    return {
        "model": "gpt-5.6-sol",
        "input": fields.get("input", "x"),
        "params": {name: value for name, value in fields.items() if name != "input"},
    }


@pytest.mark.parametrize(("fields", "param"), NAMES, ids=[param for _, param in NAMES])
async def test_state_of_the_provider_is_refused_on_both_faces(sdk, acme, redis, fields, param):
    answer = await acme.post("/v1/jobs", json=native(fields))
    assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_parameter")
    pointer = "/" + param.replace("[", "/").replace("]", "").replace(".", "/")
    (error,) = answer.json()["errors"]
    assert error["pointer"] == (pointer if pointer.startswith("/input") else f"/params{pointer}")
    assert "VIGIL_SHARED_PROVIDER_STATE" in error["detail"]
    rows = (await acme.post("/v1/jobs/batch", json={"jobs": [native(fields)]})).json()
    assert rows[0]["status"] == 422
    with pytest.raises(BadRequestError) as raised:
        await sdk.responses.create(model="gpt-5.6-sol", input="x", background=True, extra_body=fields)
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", param)
    assert await redis.zcard(keys.READY) == 0


PRIVATE = [
    *("http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://[::ffff:169.254.169.254]/"),
    *("http://2852039166/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376/", "http://169.254.43518/"),
    *("https://localhost/", "https://metadata.google.internal/", "http://10.0.0.5:8080/", "http://127.1/"),
    *("http://①⑥⑨.254.169.254/", "http://public.example\\@169.254.169.254/", "http://a@b@169.254.169.254/"),
    *(" http://169.254.169.254/", "HTTP:169.254.169.254", "http:/\t/169.254.169.254/", "//169.254.169.254/"),
    *("file:///etc/passwd", "gopher://127.0.0.1:6379/", "http://localhost./", "http://127.0.0.1%2f@x/", "http://0/"),
    *("http://168.63.129.16/", "http://100.100.100.200/", "http://user:pw@192.168.1.1/", "http://x.local./"),
]


ITEM = {"type": "item_reference", "id": "msg_1"}


@pytest.mark.parametrize("name", ["input", "instructions", "messages", "anything"])
async def test_an_earlier_item_is_refused_under_whatever_name_items_are_sent(acme, name):
    for value in ([ITEM], ITEM, [{"role": "user", "content": [ITEM]}], [{"id": "msg_1"}]):
        answer = await acme.post("/v1/jobs", json=native({}) | {"params": {name: value}})
        assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_parameter"), value
        assert answer.json()["errors"][0]["pointer"].startswith(f"/params/{name}")


async def test_items_that_only_have_ids_are_no_names_wherever_they_are_sent(acme):
    items = [{"role": "assistant", "content": "a", "id": "msg_1"}, {"role": "user", "content": "b"}]
    for fields in ({"input": items}, {"params": {"input": items, "instructions": items, "user": "https://idp/u1"}}):
        assert (await acme.post("/v1/jobs", json=native({}) | fields)).status_code == 202


async def test_addresses_in_a_private_network_are_refused_in_tools_and_input_on_both_faces(sdk, acme, redis):
    for url in PRIVATE:
        for fields in ({"tools": [{**MCP, "server_url": url}]}, {"input": image(url)}, {"input": image({"url": url})}):
            answer = await acme.post("/v1/jobs", json=native(fields))
            assert (answer.status_code, answer.json()["code"]) == (422, "url_not_allowed"), (url, answer.text)
            assert answer.json()["errors"][0]["pointer"].startswith(
                ("/params/tools/0/server_url", "/input/0/content/0")
            )
            assert "169.254" not in answer.text, "what was sent is not repeated"
    with pytest.raises(UnprocessableEntityError) as raised:
        await sdk.responses.create(model="gpt-5.6-sol", input="x", tools=[{**MCP, "server_url": PRIVATE[0]}])
    assert (raised.value.code, raised.value.param) == ("url_not_allowed", "tools[0].server_url")
    assert await redis.zcard(keys.READY) == 0


class Lookups(list):
    """The names that were looked up; each takes `delay` seconds."""

    delay = 0.0


@pytest.fixture
def lookups(monkeypatch):
    """Names that this test's name servers know; every other one has no address. What was looked up is recorded."""
    known = {"rebind.example": ["93.184.216.34", "10.1.2.3"], "public.example": ["93.184.216.34"]}
    looked_up = Lookups()

    async def resolve(self, host, app):
        looked_up.append(host)
        await asyncio.sleep(looked_up.delay)
        if host not in known:
            raise OSError("no such name")
        return known[host]

    monkeypatch.setattr("worker.webhooks.resolver.SystemResolver.__call__", resolve)
    return looked_up


async def test_a_name_that_leads_into_a_private_network_is_refused_and_asked_once(lookups, acme):
    for _ in range(3):
        answer = await acme.post(
            "/v1/jobs", json=native({"tools": [{**MCP, "server_url": "https://rebind.example/mcp"}]})
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "url_not_allowed")
    assert lookups == ["rebind.example"]
    many = {"input": [image(f"https://h{n}.example/")[0] for n in range(33)]}
    assert (await acme.post("/v1/jobs", json=native(many))).json()["code"] == "url_not_allowed"
    assert len(lookups) == 1, "a request can't have any number of names looked up"


def mcp(*hosts):
    return native({"tools": [{**MCP, "server_url": f"https://{host}/mcp"} for host in hosts]})


async def batch(client, jobs):
    answer = await client.post("/v1/jobs/batch", json={"jobs": jobs})
    assert answer.status_code == 200
    return [row.get("problem", {}).get("code", row["status"]) for row in answer.json()], answer.json()


async def test_names_that_many_jobs_of_a_batch_share_are_looked_up_once_and_together(lookups, acme):
    lookups.delay = 0.05
    began = time.perf_counter()
    codes, _ = await batch(acme, [mcp(*(f"h{n}.example" for n in range(15)))] * 30 + [mcp("rebind.example")])
    assert codes == [202] * 30 + ["url_not_allowed"]
    assert sorted(lookups) == sorted({*lookups})
    assert time.perf_counter() - began < 15 * 30 * lookups.delay / 3, "one after the other they take 22 s"


async def test_a_batch_has_no_more_names_looked_up_than_the_limit_and_the_jobs_before_it_are_taken(lookups, acme):
    codes, rows = await batch(acme, [mcp(*(f"h{job}-{n}.example" for n in range(15))) for job in range(40)])
    assert codes == [202] * (MAX_NAMES // 15) + ["url_not_allowed"] * (40 - MAX_NAMES // 15)
    assert len(lookups) == MAX_NAMES
    assert f"{MAX_NAMES} hosts" in rows[-1]["problem"]["detail"]
    assert rows[-1]["problem"]["errors"][0]["pointer"].startswith("/params/tools/")
    codes, _ = await batch(acme, [mcp(*(f"x{n}.example" for n in range(33))), mcp("public.example"), {"input": 5}, 7])
    assert codes[0] == "url_not_allowed"
    assert codes[1:] == [202, "validation_error", "validation_error"]
    assert "x0.example" not in lookups, "a job that is refused anyway takes no other job's lookups"


TOO_LONG = [
    "https://" + "a" * 30_000 + "/",
    "https://" + "a." * 300 + "example/",
    "https://" + "a" * 64 + ".example/",
    "https://x." + "ü" * 60 + ".example/",
    "https://public.example/" + "y" * 8_192,
    "https://-x.example/",
    "https://x..example/",
]


@pytest.mark.parametrize("url", TOO_LONG, ids=[url[:20] for url in TOO_LONG])
async def test_a_host_or_an_address_that_no_name_server_knows_is_refused_wherever_it_stands(lookups, acme, url):
    places = [
        ({"params": {"tools": [{**MCP, "server_url": url}]}}, "/params/tools/0/server_url"),
        ({"input": image(url)}, "/input/0/content/0/image_url"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": url}]}]}, None),
        ({"params": {"anything": {"callback": url}}}, "/params/anything/callback"),
        ({"webhook": {"url": url}}, "/webhook/url"),
    ]
    for fields, pointer in places:
        answer = await acme.post("/v1/jobs", json=native({}) | fields)
        assert answer.status_code in (413, 422), pointer
        if answer.status_code == 422:
            assert answer.json()["code"] == "url_not_allowed" or answer.json()["code"].startswith("webhook_url_")
            assert pointer is None or answer.json()["errors"][0]["pointer"] == pointer
        assert len(answer.content) < 2_000, "what was sent is not repeated"
    assert lookups == []


async def test_a_host_without_a_scheme_has_the_same_limits(lookups, acme):
    for host in ("a." * 300 + "example", "x." + "a" * 64 + ".example"):
        answer = await acme.post("/v1/jobs", json=native({"x": {"host": host}}))
        assert (answer.status_code, answer.json()["code"]) == (422, "url_not_allowed")
    assert lookups == []


GOOD = [
    {"tools": [{**MCP, "server_url": "https://public.example/mcp?x=" + "y" * 3000, "authorization": "token"}]},
    {"input": image("https://unknown.example/a.png#part")},
    {"input": image("http://93.184.216.34:8080/a.png")},
    {"input": image("data:image/png;base64,AAAA")},
    {"input": "Open http://169.254.169.254/ for me.", "metadata": {"url": "http://10.0.0.1/"}},
    {"previous_response_id": None, "tools": [{"type": "web_search"}], "reasoning": {"effort": "low"}},
    {"input": [{"role": "assistant", "content": "a", "id": "msg_1"}, {"role": "user", "content": "b"}]},
]


async def test_what_may_be_forwarded_is_forwarded_as_it_came(lookups, acme, sdk, jobs):
    for fields in GOOD:
        answer = await acme.post("/v1/jobs", json=native(fields))
        assert answer.status_code == 202, (fields, answer.text)
        stored = await jobs.load_input(answer.json()["id"])
        assert stored == {"instructions": None, **{k: v for k, v in native(fields).items() if k != "model"}}
    response = await sdk.responses.create(
        model="gpt-5.6-sol", input="x", background=True, extra_body={"conversation": None}
    )
    assert response.status == "queued"


@pytest.mark.parametrize("prompt", [{"id": "pmpt_1"}, "pmpt_1"])
async def test_stored_prompts_are_refused_with_the_day_of_their_end(sdk, acme, prompt):
    answer = await acme.post("/v1/jobs", json=native({"prompt": prompt}))
    assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_parameter")
    assert answer.json()["errors"][0]["pointer"] == "/params/prompt"
    with pytest.raises(BadRequestError, match="2026-11-30") as raised:
        await sdk.responses.create(model="gpt-5.6-sol", input="x", background=True, extra_body={"prompt": prompt})
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "prompt")


async def test_operators_may_share_state_with_all_apps(settings, redis, clock):
    shared = settings.model_copy(update={"shared_provider_state": ("vs_team", "file_*")})
    async with running(shared, redis, clock) as api:
        client = await api.client()
        tools = [{"type": "file_search", "vector_store_ids": ["vs_team"]}]
        await submitted(client, params={"tools": tools})
        tools[0]["vector_store_ids"].append("vs_other")
        answer = await client.post("/v1/jobs", json=native({"tools": tools}))
        assert [row["pointer"] for row in answer.json()["errors"]] == ["/params/tools/0/vector_store_ids/1"]


async def test_the_user_of_the_params_is_the_end_user_and_goes_no_further(acme, sdk, jobs):
    by_name = (await acme.post("/v1/jobs", json=native({}) | {"end_user": "u-1"})).json()["id"]
    by_params = (await acme.post("/v1/jobs", json=native({"user": "u-1"}))).json()["id"]
    both = (await acme.post("/v1/jobs", json=native({"user": "u-2"}) | {"end_user": "u-1"})).json()["id"]
    face = (await sdk.responses.create(model="gpt-5.6-sol", input="x", background=True, user="u-1")).id
    found = [await jobs.load(one) for one in (by_name, by_params, both, face.replace("resp_", "job_"))]
    assert len({one.job.safety_identifier for one in found}) == 1
    assert {one.private["end_user"] for one in found} == {"u-1"}
    for one in (by_params, both):
        assert "user" not in (await jobs.load_input(one))["params"]
    for bad in (5, "", "x" * 201, ["u"], "a\nb"):
        answer = await acme.post("/v1/jobs", json=native({"user": bad}))
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/params/user"), bad
