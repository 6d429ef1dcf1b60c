"""What a foreground stream looks like through the real SDK."""

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from worker.simulator import SCENARIOS, Simulator

SOL = "gpt-5.6-sol"
NORMAL = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    *["response.output_text.delta"] * 20,
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
    "response.rate_limits.updated",
]


async def events(client: AsyncOpenAI, text: str, **more: Any) -> list[Any]:
    """Return all events of a stream."""
    stream = await client.responses.create(model=more.pop("model", SOL), input=text, stream=True, **more)
    async with stream:
        return [event async for event in stream]


def one(found: list[Any], kind: str) -> Any:
    """Return the only event of a type."""
    (event,) = [event for event in found if event.type == kind]
    return event


async def test_a_normal_stream_has_the_usual_order_and_numbers(client: AsyncOpenAI) -> None:
    found = await events(client, "Tell me something pleasant.", metadata={"a": "b"}, instructions="Be brief.")
    assert [event.type for event in found] == NORMAL
    assert [event.sequence_number for event in found] == list(range(len(NORMAL)))
    done = one(found, "response.completed").response
    text = "".join(event.delta for event in found if event.type == "response.output_text.delta")
    assert done.output_text == text == one(found, "response.output_text.done").text
    assert "pleasant" not in text
    assert (done.metadata, done.instructions, done.model) == ({"a": "b"}, "Be brief.", SOL)
    assert done.usage.output_tokens == 20
    assert done.usage.total_tokens == done.usage.input_tokens + 20
    done.model_dump_json()  # no serialiser warning (warnings are errors)


async def test_obfuscation_can_be_left_out(client: AsyncOpenAI) -> None:
    padded = await events(client, "x")
    bare = await events(client, "x", stream_options={"include_obfuscation": False})
    assert "obfuscation" in padded[4].model_extra
    assert "obfuscation" not in bare[4].model_extra


async def test_the_sdk_helper_accumulates_every_delta(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model=SOL, input="[[sim: normal tokens=300]]") as stream:
        final = await stream.get_final_response()
    assert len(final.output_text.split()) == 300


async def test_the_same_in_one_piece(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(model=SOL, input=[{"role": "user", "content": "[[sim: normal tokens=7]]"}])
    assert (answer.status, answer.usage.output_tokens if answer.usage else 0) == ("completed", 7)
    assert answer._request_id is not None
    stored = await client.responses.retrieve(answer.id)
    assert stored.output_text == answer.output_text


def test_the_sync_sdk_works_too() -> None:
    async def serve() -> str:
        async with Simulator(speed=1000) as sim:
            return await asyncio.to_thread(ask, sim.url)

    def ask(url: str) -> str:
        with (
            OpenAI(api_key="k", base_url=url, max_retries=0) as client,
            client.responses.create(model=SOL, input="hello", stream=True) as stream,
        ):
            return [event.type for event in stream][-2]

    assert asyncio.run(serve()) == "response.completed"


async def test_a_check_is_announced_and_cleared(client: AsyncOpenAI) -> None:
    found = await events(client, "[[sim: check_then_clear use_case=cyber,bio retry_model=none]] go")
    assert [event.type for event in found][:3] == ["response.created", "response.metadata", "response.in_progress"]
    assert found[1].model_extra["metadata"] == {
        "type": "safety_buffering",
        "use_cases": ["cyber", "bio"],
        "reasons": ["user_risk"],
        "retry_model": None,
    }
    assert found[-2].response.status == "completed"


async def test_a_repeated_check_rides_on_other_events(client: AsyncOpenAI) -> None:
    found = await events(client, "[[sim: check_repeats]]")
    buffering = [event for event in found if "safety_buffering" in (event.model_extra or {})]
    assert [event.type for event in buffering] == [
        "response.in_progress",
        "response.output_text.delta",
        "response.completed",
    ]
    assert "retry_model" not in one(found, "response.metadata").model_extra["metadata"]
    assert [event.type for event in found].count("keepalive") == 2


async def test_a_block_is_two_events_with_two_codes(client: AsyncOpenAI, sim: Simulator) -> None:
    with pytest.raises(openai.APIError) as caught:
        await events(client, "[[sim: check_block_after_output]]")
    assert (caught.value.code, caught.value.type) == ("cyber_policy", "invalid_request")
    raw = client.responses.with_streaming_response.create(
        model=SOL, input="[[sim: check_block_after_output]]", stream=True
    )
    async with raw as answer:
        lines = [line async for line in answer.iter_lines() if line.startswith("data:")]
    assert '"code":"cyber_policy"' in lines[-2]
    assert '"error":{"code":"server_error"' in lines[-1]
    assert '"output_tokens":1,' in lines[-1]
    assert sim.calls()["tokens_billed"]["output"] == 2


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("[[sim: bio_block]]", "response.failed", "bio_policy"),
        ("[[sim: failed_only code=invalid_prompt]]", "response.failed", "invalid_prompt"),
        ("[[sim: misalignment_mid_stream]]", "response.failed", "misalignment_policy_violation"),
        ("[[sim: rate_limited carrier=response_failed]]", "response.failed", "rate_limit_exceeded"),
        ("[[sim: flat_error]]", "error", "cyber_policy"),
    ],
)
async def test_failures_inside_a_stream(client: AsyncOpenAI, text: str, kind: str, code: str) -> None:
    last = (await events(client, text))[-1]
    assert last.type == kind
    assert (last.code if kind == "error" else last.response.error.code) == code


async def test_misalignment_explains_itself(client: AsyncOpenAI) -> None:
    last = (await events(client, "[[sim: misalignment_mid_stream]]"))[-1]
    assert last.response.error.misalignment.steer.message == "simulated instruction"
    assert last.response.usage.output_tokens == 10


@pytest.mark.parametrize(
    ("text", "reason", "tokens"),
    [
        ("[[sim: content_filter]]", "content_filter", 2),
        ("[[sim: max_tokens tokens=9]]", "max_output_tokens", 9),
        ("[[sim: content_filter code=steered partial=0]]", "steered", 0),
    ],
)
async def test_incomplete_responses(client: AsyncOpenAI, text: str, reason: str, tokens: int) -> None:
    last = (await events(client, text))[-1].response
    assert (last.status, last.incomplete_details.reason, last.usage.output_tokens) == ("incomplete", reason, tokens)


async def test_the_requests_own_token_limit_counts(client: AsyncOpenAI) -> None:
    last = (await events(client, "[[sim: normal tokens=50]]", max_output_tokens=16))[-1].response
    assert (last.incomplete_details.reason, last.usage.output_tokens) == ("max_output_tokens", 16)


async def test_a_refusal_is_a_completed_answer(client: AsyncOpenAI) -> None:
    done = one(await events(client, "[[sim: refusal]]"), "response.completed").response
    assert done.output[0].content[0].refusal == "Sorry, I can't help with that."


async def test_a_tool_is_called(client: AsyncOpenAI) -> None:
    tool = {
        "type": "function",
        "name": "weather",
        "strict": True,
        "parameters": {"properties": {"city": {"type": "string"}}},
    }
    found = await events(client, "[[sim: normal tool=1]]", tools=[tool])
    item = one(found, "response.completed").response.output[0]
    assert (item.type, item.name, item.arguments) == ("function_call", "weather", '{"city":"ok"}')
    assert one(found, "response.function_call_arguments.done").arguments == item.arguments


async def test_json_is_answered_with_json(client: AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = await client.responses.create(
        model=SOL, input="x", text={"format": {"type": "json_schema", "name": "n", "schema": schema}}
    )
    assert answer.output_text == '{"n":1}'


async def test_who_serves(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(model=SOL, input="[[sim: rerouted]]", stream=True)
    async with stream:
        assert stream.response.headers["openai-model"] == "gpt-5.6-luna"
        found = [event async for event in stream]
    assert found[0].response.model_extra["headers"] == {"OpenAI-Model": ["gpt-5.6-luna"]}
    assert one(found, "response.completed").response.model == "gpt-5.6-luna"
    mixed = await events(client, "[[sim: model_conflict]]")
    assert (mixed[0].response.model, mixed[-2].response.model) == (SOL, "gpt-5.6-terra")
    dated = await events(client, "[[sim: alias]]")
    assert {dated[0].response.model, dated[-2].response.model} == {f"{SOL}-2026-07-09"}


async def test_odd_but_legal_streams(client: AsyncOpenAI) -> None:
    twice = [event.type for event in await events(client, "[[sim: double_terminal]]")]
    assert twice[-3:] == ["response.completed", "response.failed", "response.rate_limits.updated"]
    numbers = [event.sequence_number for event in await events(client, "[[sim: sequence_gap]]")]
    assert numbers == sorted(numbers)
    assert max(numbers) > len(numbers)
    noise = [event.type for event in await events(client, "[[sim: noise]]")]
    assert None in noise
    assert "response.something_new" in noise
    assert len(await events(client, "[[sim: trailing_events]]")) == len(NORMAL) + 2


async def test_the_list_names_every_scenario(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(model=SOL, input="[[sim: list]]")
    assert [line.partition(":")[0] for line in answer.output_text.splitlines()] == list(SCENARIOS)


async def test_a_big_output_is_all_there(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(model=SOL, input="[[sim: normal tokens=20000 rate=100000]]")
    assert len(answer.output_text.split()) == 20_000
