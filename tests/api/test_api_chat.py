"""Chat completions through OpenAI's SDK, with a real worker and the simulator behind, whole and streamed."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from pathlib import Path
from string import Template

import openai
import pytest
from openai_sdk import LUNA, SOL, blocking, sdk_against_api
from pydantic import BaseModel

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
async def sdk(settings, redis, clock, valkey_url):
    async with sdk_against_api(settings, redis, clock, valkey_url) as sdk:
        yield sdk


def ask(prompt):
    return [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": prompt}]


async def streamed(sdk, prompt="Hello", **params):
    """The chunks of a streamed completion, and the error that the SDK raised, or None."""
    chunks = []
    try:
        stream = await sdk.client.chat.completions.create(model=SOL, messages=ask(prompt), stream=True, **params)
        async for chunk in stream:
            chunks.append(chunk)  # noqa: PERF401  what came before an error counts
    except openai.APIError as error:
        return chunks, error
    return chunks, None


def text_of(chunks):
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


async def test_a_completion_is_a_job(sdk):
    raw = await sdk.client.chat.completions.with_raw_response.create(
        model=SOL, messages=ask("Hello"), metadata={"ticket": "A-17"}, safety_identifier="ann", max_tokens=400
    )
    done = await blocking(raw.parse)
    (choice,) = done.choices
    assert (done.object, done.model, choice.index, choice.finish_reason) == ("chat.completion", SOL, 0, "stop")
    assert (choice.message.role, choice.message.refusal, choice.message.tool_calls) == ("assistant", None, None)
    usage = done.usage
    assert usage.prompt_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert (usage.prompt_tokens_details.cached_tokens, usage.completion_tokens_details.reasoning_tokens) == (0, 0)
    assert done.metadata == {"ticket": "A-17"}
    job_id = done.vigil["job_id"]
    assert (raw.headers["x-vigil-job"], raw.headers["x-vigil-served-model"]) == (job_id, SOL)
    assert done.id == job_id.replace("job_", "chatcmpl-")
    for path in (f"/v1/jobs/{done.id}", f"/v1/responses/{done.id}"):
        assert choice.message.content in (await sdk.http.get(path)).text
    listed = (await sdk.http.get("/v1/jobs", params={"end_user": "ann"})).json()["data"]
    assert [(job["id"], job["output_text"]) for job in listed] == [(job_id, choice.message.content)]
    stored = await sdk.stage.jobs.load_input(job_id)
    assert stored["params"] == {"max_output_tokens": 400}
    same = await blocking(lambda: sdk.blocking.chat.completions.create(model=SOL, messages=HELLO))
    assert same.id != done.id


async def test_chunks_are_the_same_answer(sdk):
    chunks, error = await streamed(
        sdk, "[[sim: normal tokens=200 rate=40]] Hello", stream_options={"include_usage": True}
    )
    assert error is None
    first, *_, last, usage = chunks
    assert (first.choices[0].delta.role, first.choices[0].finish_reason) == ("assistant", None)
    assert {(chunk.id, chunk.object, chunk.model) for chunk in chunks} == {(first.id, "chat.completion.chunk", SOL)}
    assert (last.choices[0].finish_reason, last.vigil["status"]) == ("stop", "completed")
    assert [bool(chunk.choices) for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    job = (await sdk.http.get(f"/v1/jobs/{first.id}")).json()
    assert text_of(chunks) == job["output_text"]
    assert usage.usage.completion_tokens == job["usage"]["output_tokens"]
    assert len(chunks) > 6, "in pieces"


async def test_text_comes_while_the_job_runs(sdk):
    prompt = "[[sim: normal tokens=400 rate=10]] Hello"
    stream = await sdk.client.chat.completions.create(model=SOL, messages=ask(prompt), stream=True)
    unsettled = False
    async for chunk in stream:
        if chunk.choices[0].delta.content and not unsettled:
            unsettled = not (await sdk.stage.job(stream.response.headers["x-vigil-job"])).settled
    assert unsettled, "no text before the end"


async def test_tool_calls_whole_and_streamed_and_their_results(sdk):
    prompt = "[[sim: normal tool=1]] Weather?"
    done = await sdk.client.chat.completions.create(model=SOL, messages=ask(prompt), tools=[TOOL])
    (choice,) = done.choices
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function",
        "weather",
        {"city": "ok"},
    )
    chunks, error = await streamed(sdk, prompt, tools=[TOOL])
    assert error is None
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or ()]
    assert {delta.index for delta in deltas} == {0}
    assert [bool(delta.id) for delta in deltas] == [True] + [False] * (len(deltas) - 1)
    assert deltas[0].function.name == "weather"
    assert "".join(delta.function.arguments for delta in deltas) == call.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    more = [*ask(prompt), choice.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    assert (await sdk.client.chat.completions.create(model=SOL, messages=more, tools=[TOOL])).choices


class Pet(BaseModel):
    name: str
    age: int


async def test_structured_output_and_the_stream_helper(sdk):
    parsed = await sdk.client.chat.completions.parse(model=SOL, messages=ask("A pet"), response_format=Pet)
    assert parsed.choices[0].message.parsed == Pet(name="ok", age=1)
    async with sdk.client.chat.completions.stream(model=SOL, messages=ask("A pet"), response_format=Pet) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == Pet(name="ok", age=1)


async def test_refusal_and_token_limit(sdk):
    for prompt in ("[[sim: refusal]] Hello", "[[sim: max_tokens]] Hello"):
        done = await sdk.client.chat.completions.create(model=SOL, messages=ask(prompt))
        chunks, error = await streamed(sdk, prompt)
        assert error is None
        choice = done.choices[0]
        assert chunks[-1].choices[0].finish_reason == choice.finish_reason
        if "refusal" in prompt:
            assert (choice.finish_reason, choice.message.content) == ("stop", None)
            refusal = "".join(chunk.choices[0].delta.refusal or "" for chunk in chunks)
            assert refusal == choice.message.refusal
            assert refusal.startswith("Sorry")
        else:
            assert choice.finish_reason == "length"
            assert text_of(chunks) == choice.message.content != ""


@pytest.mark.parametrize(
    ("scenario", "code"), [("bio_block", "bio_policy"), ("block_before_stream hold=1", "cyber_policy")]
)
async def test_a_block_without_text_is_a_content_filter(sdk, scenario, code):
    prompt = f"[[sim: {scenario}]] Hello"
    done = await sdk.client.chat.completions.create(model=SOL, messages=ask(prompt))
    (choice,) = done.choices
    assert (choice.finish_reason, choice.message.content, choice.message.tool_calls) == ("content_filter", None, None)
    assert done.error["code"] == code
    assert (done.vigil["status"], done.vigil["safety"]["block"]["code"]) == ("blocked", code)
    chunks, error = await streamed(sdk, prompt)
    assert error is None
    assert text_of(chunks) == ""
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    assert chunks[-1].choices[0].error["code"] == code


@pytest.mark.parametrize(
    ("scenario", "policy", "raised", "code"),
    [
        ("model_not_found", {"fallback": []}, openai.NotFoundError, "model_not_found"),
        ("silent_delay hold=600", {"run_deadline_seconds": 0.5}, openai.InternalServerError, "deadline_exceeded"),
        ("rerouted", {"require_model": True}, openai.ConflictError, "model_mismatch"),
    ],
)
async def test_a_job_without_an_answer_raises(sdk, scenario, policy, raised, code):
    given = {"extra_body": {"vigil": {"policy": policy}}}
    prompt = f"[[sim: {scenario}]] Hello"
    client = sdk.client.with_options(max_retries=2)  # (none of them may make a second job)
    with pytest.raises(raised) as found:
        await client.chat.completions.create(model=SOL, messages=ask(prompt), **given)
    assert (found.value.code, found.value.body["vigil"]["status"] in ("failed", "expired")) == (code, True)
    job_id = found.value.response.headers["x-vigil-job"]
    assert [job["id"] for job in (await sdk.http.get("/v1/jobs")).json()["data"]] == [job_id]
    _, error = await streamed(sdk, prompt, **given)
    assert error.code == code


async def test_a_substitution_is_disclosed(sdk):
    prompt = "[[sim: check_then_clear hold=60]] Hello"
    policy = {"on_delay": {"action": "switch", "after_seconds": 0.2}}
    given = {"model": SOL, "messages": ask(prompt), "extra_body": {"vigil": {"policy": policy}}}
    raw = await sdk.client.chat.completions.with_raw_response.create(**given)
    done = await blocking(raw.parse)
    assert (done.model, done.vigil["disclosure"]["reason"]) == (LUNA, "safety_check_delay")
    assert raw.headers["x-vigil-substituted"] == "safety_check_delay"
    chunks = [chunk async for chunk in await sdk.client.chat.completions.create(**given, stream=True)]
    assert {chunk.model for chunk in chunks if chunk.choices[0].delta.content} == {LUNA}
    assert chunks[-1].vigil["disclosure"]["requested_model"] == SOL


async def test_a_long_wait_is_kept_alive_and_says_what_failed(sdk, monkeypatch):
    monkeypatch.setattr("api.openai_compat.chat.routes._KEEP_ALIVE_S", 0.05)
    raw = await sdk.client.chat.completions.with_raw_response.create(
        model=SOL, messages=ask("[[sim: silent_delay hold=20]] Hello")
    )
    assert raw.http_response.text.startswith("  ")
    assert (await blocking(raw.parse)).choices[0].message.content
    late = await sdk.client.chat.completions.create(
        model=SOL,
        messages=ask("[[sim: silent_delay hold=600]] Hello"),
        extra_body={"vigil": {"policy": {"run_deadline_seconds": 0.5}}},
    )
    assert (late.choices, late.error["code"]) == ([], "deadline_exceeded")


async def test_a_stream_ends_with_done_unless_it_failed(sdk):
    for scenario, done in (("normal", True), ("bio_block", True), ("server_error times=99", False)):
        body = {"model": SOL, "messages": ask(f"[[sim: {scenario}]] Hi"), "stream": True}
        body["vigil"] = {"policy": {"max_attempts": 1}}
        answer = await sdk.http.post("/v1/chat/completions", json=body)
        assert answer.headers["content-type"].startswith("text/event-stream")
        frames = [frame for frame in answer.text.split("\n\n") if frame]
        assert (frames[-1] == "data: [DONE]") is done
        assert done or "error" in json.loads(frames[-1].removeprefix("data: "))


async def test_one_key_is_one_job(sdk):
    headers = {"Idempotency-Key": "k-1"}
    first, again = [
        await sdk.client.chat.completions.create(model=SOL, messages=HELLO, extra_headers=headers) for _ in range(2)
    ]
    assert first.to_dict() == again.to_dict()


async def test_over_every_upstream_mode(settings, redis, clock, valkey_url):
    """The provider gets a chat request again when it is called with Chat Completions."""
    prompt = "[[sim: normal tool=1]] Weather?"
    async with sdk_against_api(
        settings.model_copy(update={"upstream": "chat"}), redis, clock, valkey_url, worker=False
    ) as sdk:
        for mode in ("stream", "chat"):
            worker = await sdk.stage.worker(upstream=mode)
            extra = {"stop": ["END"], "seed": 7} if mode == "chat" else {}
            done = await sdk.client.chat.completions.create(model=SOL, messages=ask(prompt), tools=[TOOL], **extra)
            assert done.choices[0].message.tool_calls[0].function.name == "weather"
            chunks, error = await streamed(sdk, "Hello")
            assert (error, chunks[-1].choices[0].finish_reason) == (None, "stop")
            assert text_of(chunks)
            await sdk.stage.stop(worker)


async def test_the_readme_word_for_word(sdk):
    text = (Path(__file__).parents[2] / "README.md").read_text()
    section = text.partition("## From an OpenAI client")[2].partition("\n## ")[0]
    code = section.partition("\ncompletion = ")[2].partition("```")[0]
    printed = await blocking(lambda: run_python("completion = " + code, sdk.blocking))
    assert "job_" in printed
    command = section.partition("$ curl")[2].partition("```")[0]
    given = {"VIGIL_URL": sdk.api.base_url, "VIGIL_API_KEY": sdk.key}
    _, url, _, *headers, _, body = shlex.split(Template(command).substitute(given).replace("\\\n", " "))
    sent = dict(header.split(": ") for header in headers if header != "-H")
    answer = await sdk.http.post(url, content=body, headers=sent)
    assert answer.json()["choices"][0]["message"]["content"]


def run_python(code, client):
    """What the code prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {"client": client})  # noqa: S102  the README's own
    return out.getvalue()
