"""Chat Completions through the real SDK."""

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from worker.simulator import Simulator

SOL = "gpt-5.6-sol"


def user(text: str) -> list[dict[str, str]]:
    """Return a conversation with one user message."""
    return [{"role": "system", "content": "[[sim: quota]]"}, {"role": "user", "content": text}]


async def chunks(client: AsyncOpenAI, text: str, **more: object) -> list[openai.types.chat.ChatCompletionChunk]:
    """Return all chunks of a stream."""
    stream = await client.chat.completions.create(model=SOL, messages=user(text), stream=True, **more)
    return [chunk async for chunk in stream]


async def test_a_stream_with_usage(client: AsyncOpenAI, sim: Simulator) -> None:
    found = await chunks(client, "hello", stream_options={"include_usage": True})
    assert found[0].choices[0].delta.role == "assistant"
    assert found[-2].choices[0].finish_reason == "stop"
    assert found[-1].choices == []
    assert found[-1].usage.completion_tokens == 20
    assert sim.calls()["chats"] == 1
    assert sim.calls()["tokens_billed"] == {"input": found[-1].usage.prompt_tokens, "output": 20}


async def test_without_usage_no_usage(client: AsyncOpenAI) -> None:
    assert all(chunk.usage is None for chunk in await chunks(client, "hello"))


async def test_the_same_in_one_piece(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=SOL, messages=user("[[sim: normal tokens=4]]"))
    streamed = "".join(c.choices[0].delta.content or "" for c in await chunks(client, "[[sim: normal tokens=4]]"))
    assert answer.choices[0].message.content == streamed
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 4


async def test_endings(client: AsyncOpenAI) -> None:
    for text, reason in [("content_filter", "content_filter"), ("max_tokens", "length"), ("refusal", "stop")]:
        found = await chunks(client, f"[[sim: {text}]]")
        assert found[-1].choices[0].finish_reason == reason
    assert "".join(chunk.choices[0].delta.refusal or "" for chunk in found).startswith("Sorry")


async def test_a_block_is_an_error_chunk_without_done(client: AsyncOpenAI, sim: Simulator) -> None:
    with pytest.raises(openai.APIError) as caught:
        await chunks(client, "[[sim: check_block_after_output]]")
    assert caught.value.code == "cyber_policy"
    body = {"model": SOL, "messages": user("[[sim: check_block_after_output]]"), "stream": True}
    async with (
        aiohttp.ClientSession(headers={"Authorization": "Bearer k"}) as session,
        session.post(f"{sim.url}/chat/completions", json=body) as answer,
    ):
        text = await answer.text()
    assert "[DONE]" not in text
    assert "event:" not in text


async def test_a_cut_ends_without_finish_reason(client: AsyncOpenAI) -> None:
    found = await chunks(client, "[[sim: cut how=clean after=3]]")
    assert len(found) == 3
    assert found[-1].choices[0].finish_reason is None
    silent = await chunks(client, "[[sim: no_terminal]]")
    assert silent[-1].choices[0].finish_reason is None


async def test_another_model_serves(client: AsyncOpenAI) -> None:
    assert {chunk.model for chunk in await chunks(client, "[[sim: rerouted]]")} == {"gpt-5.6-luna"}


async def test_a_tool_is_called(client: AsyncOpenAI) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"properties": {"city": {}}}}}]
    answer = await client.chat.completions.create(model=SOL, messages=user("[[sim: normal tool=1]]"), tools=tools)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls[0].function.name == "weather"
    found = await chunks(client, "[[sim: normal tool=1]]", tools=tools)
    assert found[1].choices[0].delta.tool_calls[0].function.name == "weather"
