"""The SDK of OpenAI for Python: every mode of the Responses API, and its types for every event of every scenario."""

import asyncio
import base64
import contextlib
import json
from collections import Counter
from typing import Any

import openai
from checks import KEY, MODEL, URL, feature, run
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel
from typed_events import faults_in, faults_of

WEATHER = {
    "type": "function",
    "name": "weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
NOTES = {"type": "custom", "name": "notes"}
SHORT = {"policy": {"max_attempts": 2, "run_deadline_seconds": 5, "queue_deadline_seconds": 5}}
STOPPING = {"quota", "invalid_key", "account_flagged", "gateway_key_refused"}
"""Scenarios after which Vigil holds all jobs for a while: they come last."""
WHOLE = {"normal", "refusal", "max_tokens", "prompt_block", "parallel_tool_calls", "custom_tool_call", "rerouted"}
"""Scenarios that are asked for in chat without a stream, too."""
FEW = 5
"""There are more than 60; on a busy machine, or while the account is held, most miss their deadline."""
client = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60)


class Answer(BaseModel):
    """What is asked for."""

    title: str
    points: list[int]


@feature("plain")
def plain() -> None:
    answer = client.responses.create(model=MODEL, input="hello")
    assert answer.status == "completed"
    assert answer.output_text


@feature("streamed")
def streamed() -> None:
    with client.responses.stream(model=MODEL, input="[[sim: normal tokens=200]] x") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert len(final.output_text.split()) == 200


@feature("background, polled and read again")
def background() -> None:
    answer = client.responses.create(model=MODEL, input="hello", background=True)
    while answer.status in {"queued", "in_progress"}:
        answer = client.responses.retrieve(answer.id)
    assert answer.status == "completed"
    again = list(client.responses.retrieve(answer.id, stream=True, starting_after=2))
    assert again[-1].response.output_text == answer.output_text
    assert client.responses.delete(answer.id) is None


@feature("cancelled")
def cancelled() -> None:
    answer = client.responses.create(model=MODEL, input="[[sim: queued_forever]] x", background=True)
    assert client.responses.cancel(answer.id).status in {"cancelled", "in_progress", "queued"}


@feature("structured")
def structured() -> None:
    answer = client.responses.parse(model=MODEL, input="x", text_format=Answer)
    assert isinstance(answer.output_parsed, Answer)


@feature("tools, to the end of the loop")
def tools() -> None:
    history: list[Any] = [{"role": "user", "content": "[[sim: parallel_tool_calls reasoning=1]] x"}]
    first = client.responses.create(model=MODEL, input=history, tools=[WEATHER])
    calls = [item for item in first.output if item.type == "function_call"]
    assert [json.loads(call.arguments) for call in calls] == [{"city": "ok"}] * 2
    history += [item.to_dict() for item in first.output]
    history += [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls]
    assert client.responses.create(model=MODEL, input=history, tools=[WEATHER]).output_text


@feature("tools, streamed")
def tools_streamed() -> None:
    for prompt, kind in (("tool_call", "function_call_arguments"), ("custom_tool_call", "custom_tool_call_input")):
        with client.responses.stream(model=MODEL, input=f"[[sim: {prompt}]] x", tools=[WEATHER, NOTES]) as stream:
            kinds = {event.type for event in stream}
        assert {f"response.{kind}.delta", f"response.{kind}.done"} <= kinds, kinds


@feature("reasoning, streamed")
def reasoning() -> None:
    with client.responses.stream(model=MODEL, input="[[sim: reasoning]] x") as stream:
        deltas = [event.delta for event in stream if event.type == "response.reasoning_summary_text.delta"]
        final = stream.get_final_response()
    assert final.output[0].type == "reasoning"
    assert "".join(deltas) == final.output[0].summary[0].text
    assert final.output[0].encrypted_content


@feature("image and file input")
def inputs() -> None:
    image = "data:image/png;base64," + base64.b64encode(b"no image").decode()
    content = [
        {"type": "input_text", "text": "[[sim: inputs]]"},
        {"type": "input_image", "image_url": image, "detail": "auto"},
        {"type": "input_file", "filename": "a.txt", "file_data": image},
    ]
    answer = client.responses.create(model=MODEL, input=[{"role": "user", "content": content}])
    assert answer.output_text == "The message has 1 file, 1 image, 1 text."


@feature("errors and blocks")
def errors() -> None:
    with contextlib.suppress(openai.AuthenticationError):
        OpenAI(base_url=URL, api_key="wrong", max_retries=0).responses.create(model=MODEL, input="x")
        raise AssertionError("a wrong key was accepted")
    with contextlib.suppress(openai.NotFoundError):
        client.responses.retrieve("resp_0")
        raise AssertionError("an unknown response was found")
    blocked = client.responses.create(model=MODEL, input="[[sim: check_then_block]] x")
    assert blocked.status == "failed"
    assert blocked.error.code == "cyber_policy"


@feature("models")
def models() -> None:
    assert MODEL in {model.id for model in client.models.list()}


@feature("typed events of every scenario")
async def typed() -> None:
    ends = await _each_scenario(_faults)
    assert ends["response.completed"] > FEW, ends


@feature("chat, types of every scenario", needs="time")
async def chat_typed() -> None:
    ends = await _each_scenario(_chat_faults)
    assert ends["stop"] > FEW, ends
    assert ends["content_filter"], ends


async def _each_scenario(find_faults: Any) -> Counter[str]:
    """Return how often each end came; nothing may have faults."""
    async with AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=120) as many:
        listing = await many.responses.create(model=MODEL, input="[[sim: list]]")
        names = [line.partition(":")[0] for line in listing.output_text.splitlines()]
        assert len(names) > 60
        turns = asyncio.Semaphore(25)
        found = await asyncio.gather(*(find_faults(many, name, turns) for name in names if name not in STOPPING))
    assert not any(faults for faults, _ in found), [faults for faults, _ in found if faults]
    return Counter(end for _, ends in found for end in ends)


async def _chat_faults(many: AsyncOpenAI, name: str, turns: asyncio.Semaphore) -> tuple[list[str], list[str]]:
    """Return (what the SDK's types say against the chunks of one scenario in chat, how it ended)."""
    given: Any = {"model": MODEL, "messages": [{"role": "user", "content": f"[[sim: {name}]] x"}]}
    function = {"type": "function", "function": {one: WEATHER[one] for one in ("name", "parameters", "strict")}}
    given |= {"tools": [function], "extra_body": {"vigil": SHORT}}
    found, ends = list[str](), list[str]()
    async with turns, asyncio.timeout(90):
        with contextlib.suppress(openai.APIError):
            stream = await many.chat.completions.create(**given, stream=True, stream_options={"include_usage": True})
            async for chunk in stream:
                found += [f"{name}: {fault}" for fault in faults_in(ChatCompletionChunk, chunk)]
                ends += [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
            found += [] if ends else [f"{name}: the stream has neither a finish_reason nor an error"]
        with contextlib.suppress(openai.APIStatusError):
            if name not in WHOLE:
                return found, ends or ["error"]
            whole = await many.chat.completions.create(**given)
            found += [f"{name}: {fault}" for fault in faults_in(ChatCompletion, whole)]
    return found, ends or ["error"]


async def _faults(many: AsyncOpenAI, name: str, turns: asyncio.Semaphore) -> tuple[list[str], list[str]]:
    """Return (what the SDK's types say against the events of one scenario, how it ended)."""
    async with turns:
        stream = await many.responses.create(
            model=MODEL,
            input=f"[[sim: {name}]] x",
            tools=[WEATHER, NOTES, {"type": "local_shell"}, {"type": "shell"}, {"type": "apply_patch"}],
            stream=True,
            extra_body={"vigil": SHORT},
        )
        found, last = [], None
        async with stream:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(90):
                    async for event in stream:
                        last = event.type
                        if not hasattr(event, "sequence_number"):
                            found.append(f"{name}: {event.type} has no number")
                        found += [f"{name}: {fault}" for fault in faults_of(event)]
        ends = {"response.completed", "response.failed", "response.incomplete", "error"}
        return (found if last in ends else [*found, f"{name}: ended with {last}"]), [str(last)]


@feature("chat", needs="chat")
def chat() -> None:
    messages = [{"role": "user", "content": "hello"}]
    assert client.chat.completions.create(model=MODEL, messages=messages).choices[0].message.content


@feature("chat, streamed", needs="chat")
def chat_streamed() -> None:
    messages = [{"role": "user", "content": "hello"}]
    with client.chat.completions.stream(model=MODEL, messages=messages) as stream:
        assert stream.get_final_completion().choices[0].message.content


@feature("chat, tools", needs="chat")
def chat_tools() -> None:
    tools = [{"type": "function", "function": {name: WEATHER[name] for name in ("name", "parameters", "strict")}}]
    history: list[Any] = [{"role": "user", "content": "[[sim: parallel_tool_calls]] x"}]
    with client.chat.completions.stream(model=MODEL, messages=history, tools=tools) as stream:
        message = stream.get_final_completion().choices[0].message
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [{"city": "ok"}] * 2
    history.append(message.to_dict())
    history += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
    assert client.chat.completions.create(model=MODEL, messages=history, tools=tools).choices[0].message.content


@feature("chat, structured", needs="chat")
def chat_structured() -> None:
    messages = [{"role": "user", "content": "x"}]
    answer = client.chat.completions.parse(model=MODEL, messages=messages, response_format=Answer)
    assert isinstance(answer.choices[0].message.parsed, Answer)


@feature("types of what stops the account", needs="time")
async def typed_last() -> None:
    turns = asyncio.Semaphore(9)
    async with AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=120) as many:
        asking = [find_faults(many, name, turns) for find_faults in (_faults, _chat_faults) for name in STOPPING]
        faults = [fault for found, _ in await asyncio.gather(*asking) for fault in found]
    assert not faults, faults


run()
