"""What an agent needs, through the real SDK: tool calls that end, reasoning, structured answers, counted inputs."""

import contextlib
import json
from typing import Any, Literal

import httpx2
import jsonschema
import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel, Field
from typed_events import faults_of

from worker.simulator import SCENARIOS
from worker.simulator.schema_sample import sample
from worker.simulator.tool_scenarios import TOOL_SCENARIOS

SOL = "gpt-5.6-sol"
TOOLS = [scenario.name for scenario in TOOL_SCENARIOS]


def function(name: str, **properties: str) -> dict[str, Any]:
    """Return a function tool."""
    fields = {key: {"type": kind} for key, kind in properties.items()}
    return {
        "type": "function",
        "name": name,
        "strict": False,
        "parameters": {"type": "object", "properties": fields, "required": list(fields)},
    }


WEATHER, CLOCK = function("weather", city="string"), function("clock", zone="string", hours="integer")
ALL_TOOLS = [
    WEATHER,
    CLOCK,
    {"type": "custom", "name": "notes"},
    {"type": "local_shell"},
    {"type": "apply_patch"},
]


async def loop(client: AsyncOpenAI, prompt: str, tools: list[Any], **more: Any) -> list[list[str]]:
    """Run an agent's loop to its message; return the types or names of each turn's items."""
    history: list[Any] = [{"role": "user", "content": prompt}]
    turns = []
    while len(turns) < 10:
        answer = await client.responses.create(model=SOL, input=history, tools=tools, **more)
        turns.append([getattr(item, "name", None) or item.type for item in answer.output])
        calls = [item for item in answer.output if item.type.endswith("_call")]
        if not calls:
            return turns
        history += [item.model_dump(exclude_none=True) for item in answer.output]
        history += [{"type": f"{c.type}_output", "call_id": c.call_id, "output": "done"} for c in calls]
    raise AssertionError(turns)


async def test_loops_end_with_a_message(client: AsyncOpenAI) -> None:
    assert await loop(client, "[[sim: tool_call]] x", [WEATHER, CLOCK]) == [["weather"], ["message"]]
    assert await loop(client, "[[sim: normal tool=1]] x", [WEATHER]) == [["weather"], ["message"]]
    two = await loop(client, "[[sim: parallel_tool_calls]] x", [WEATHER, CLOCK])
    assert two == [["weather", "clock"], ["message"]]
    named = await loop(client, "[[sim: tool_call name=clock,weather]] x", [WEATHER, CLOCK])
    assert named == [["clock"], ["weather"], ["message"]]
    thinking = await loop(client, "[[sim: agent_loop rounds=2]] x", [WEATHER])
    assert thinking == [["reasoning", "weather"]] * 2 + [["reasoning", "message"]]
    assert await loop(client, "[[sim: custom_tool_call]] x", ALL_TOOLS) == [["notes"], ["message"]]
    assert await loop(client, "[[sim: shell_call]] x", ALL_TOOLS) == [["local_shell_call"], ["message"]]
    assert await loop(client, "[[sim: apply_patch_call]] x", ALL_TOOLS) == [["apply_patch_call"], ["message"]]


async def test_a_request_without_the_tool_is_answered(client: AsyncOpenAI) -> None:
    for prompt in ("tool_call", "tool_call name=unknown", "shell_call", "custom_tool_call", "apply_patch_call"):
        tools = [WEATHER] if prompt != "tool_call" else []
        assert await loop(client, f"[[sim: {prompt}]] x", tools) == [["message"]]
    assert await loop(client, "[[sim: tool_call]] x", [WEATHER], tool_choice="none") == [["message"]]


async def test_one_call_at_a_time_when_the_request_says_so(client: AsyncOpenAI) -> None:
    found = await loop(client, "[[sim: parallel_tool_calls]] x", [WEATHER], parallel_tool_calls=False)
    assert found == [["weather"], ["message"]]


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ("required", "clock"),
        ({"type": "function", "name": "weather"}, "weather"),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}, "weather"),
    ],
)
async def test_a_forced_call_is_made(client: AsyncOpenAI, choice: Any, name: str) -> None:
    answer = await client.responses.create(model=SOL, input="x", tools=[WEATHER, CLOCK], tool_choice=choice)
    assert [getattr(item, "name", None) for item in answer.output] == [name]


async def test_the_arguments_fit_the_tools_schema(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(model=SOL, input="[[sim: tool_call name=clock]] x", tools=[WEATHER, CLOCK])
    (call,) = answer.output
    assert call.type == "function_call"
    jsonschema.validate(json.loads(call.arguments), CLOCK["parameters"])


async def test_a_coding_agents_shell_function_gets_its_command(client: AsyncOpenAI) -> None:
    for schema, sent in (({"type": "array"}, ["bash", "-lc", "pwd"]), ({"type": "string"}, "pwd")):
        tool = {
            "type": "function",
            "name": "shell",
            "parameters": {"type": "object", "properties": {"command": schema}, "required": ["command"]},
        }
        answer = await client.responses.create(model=SOL, input="[[sim: shell_call command=pwd]] x", tools=[tool])
        assert json.loads(answer.output[0].arguments) == {"command": sent}


async def test_tools_of_an_input_item_can_be_called(client: AsyncOpenAI) -> None:
    added = {"type": "additional_tools", "role": "developer", "tools": [WEATHER]}
    messages = [{"role": "user", "content": "[[sim: tool_call]] x"}, added]
    answer = await client.responses.create(model=SOL, input=messages)
    assert answer.output[0].name == "weather"


async def test_reasoning_is_shown_counted_and_sealed(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(model=SOL, input="[[sim: reasoning]] x")
    thought = answer.output[0]
    assert thought.type == "reasoning"
    assert thought.summary[0].text
    assert thought.encrypted_content
    assert answer.usage.output_tokens_details.reasoning_tokens == 8
    assert answer.usage.output_tokens == 28


async def test_every_event_of_every_scenario_is_one_of_the_sdks_types(client: AsyncOpenAI) -> None:
    seen: dict[str, int] = {}
    for name in SCENARIOS:
        if name in {"queued_forever", "hang", "content_parts"}:  # nothing more comes; another shape on purpose
            continue
        seen[name] = 0
        with contextlib.suppress(openai.OpenAIError, httpx2.HTTPError, ValueError):  # as the scenario wants it
            stream = await client.responses.create(model=SOL, input=f"[[sim: {name}]] x", tools=ALL_TOOLS, stream=True)
            async with stream:
                async for event in stream:
                    seen[name] += 1
                    assert faults_of(event) == [], name
    assert all(seen[name] > 5 for name in TOOLS)


async def test_a_stream_of_calls_accumulates_in_the_sdks_helper(client: AsyncOpenAI) -> None:
    for prompt in ("parallel_tool_calls calls=3 reasoning=1", "agent_loop", "custom_tool_call"):
        async with client.responses.stream(model=SOL, input=f"[[sim: {prompt}]] x", tools=ALL_TOOLS) as stream:
            final = await stream.get_final_response()
        whole = await client.responses.create(model=SOL, input=f"[[sim: {prompt}]] x", tools=ALL_TOOLS)
        shown = [(item.type, getattr(item, "arguments", getattr(item, "input", None))) for item in final.output]
        assert shown == [(i.type, getattr(i, "arguments", getattr(i, "input", None))) for i in whole.output]


async def test_a_chat_calls_tools_and_ends(client: AsyncOpenAI) -> None:
    tools = [{"type": "function", "function": {k: t[k] for k in ("name", "parameters")}} for t in (WEATHER, CLOCK)]
    history: list[Any] = [{"role": "user", "content": "[[sim: parallel_tool_calls]] x"}]
    first = await client.chat.completions.create(model=SOL, messages=history, tools=tools)
    assert first.choices[0].finish_reason == "tool_calls"
    calls = first.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["weather", "clock"]
    async with client.chat.completions.stream(model=SOL, messages=history, tools=tools) as stream:
        streamed = (await stream.get_final_completion()).choices[0].message.tool_calls
    assert [call.function.arguments for call in streamed] == [call.function.arguments for call in calls]
    history.append(first.choices[0].message.model_dump(exclude_none=True))
    history += [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in calls]
    last = await client.chat.completions.create(model=SOL, messages=history, tools=tools)
    assert (last.choices[0].finish_reason, last.choices[0].message.tool_calls) == ("stop", None)
    messages = [{"role": "user", "content": "[[sim: reasoning]]"}]
    thinking = await client.chat.completions.create(model=SOL, messages=messages)
    assert thinking.usage.completion_tokens_details.reasoning_tokens == 8


async def test_inputs_are_counted_and_never_repeated(client: AsyncOpenAI) -> None:
    image = "data:image/png;base64,c2VjcmV0"
    parts = [
        {"type": "input_text", "text": "[[sim: inputs]] secret"},
        {"type": "input_image", "image_url": image, "detail": "auto"},
        {"type": "input_file", "filename": "secret.txt", "file_data": image},
    ]
    answer = await client.responses.create(model=SOL, input=[{"role": "user", "content": parts}])
    assert answer.output_text == "The message has 1 file, 1 image, 1 text."
    chat = [{"type": "text", "text": "[[sim: inputs]]"}, {"type": "image_url", "image_url": {"url": image}}]
    counted = await client.chat.completions.create(model=SOL, messages=[{"role": "user", "content": chat}])
    assert counted.choices[0].message.content == "The message has 1 image, 1 text."


class Node(BaseModel):
    """Nested, recursive, bounded: what an app's models are like."""

    kind: Literal["leaf", "branch"]
    weight: float = Field(gt=0, lt=0.5)
    size: int = Field(ge=10, multiple_of=4)
    code: str = Field(min_length=5, max_length=8)
    pair: tuple[int, str]
    parent: "Node | None"
    children: list["Node"] = Field(min_length=0)
    either: int | str


async def test_a_structured_answer_is_an_instance(client: AsyncOpenAI) -> None:
    parsed = await client.responses.parse(model=SOL, input="[[sim: structured_output]] x", text_format=Node)
    assert isinstance(parsed.output_parsed, Node)


@pytest.mark.parametrize(
    "schema",
    [
        Node.model_json_schema(),
        {"allOf": [{"$ref": "#/$defs/a"}, {"properties": {"b": {"type": "null"}}, "required": ["b"]}],
         "$defs": {"a": {"type": "object", "properties": {"a": {"enum": [3]}}, "required": ["a"]}}},
        {"type": "array", "minItems": 3, "prefixItems": [{"type": "boolean"}],
         "items": {"type": "string", "format": "uuid"}},
        {"type": "integer", "exclusiveMaximum": -3},
        {"type": "number", "minimum": 0.2, "maximum": 0.3},
        {"type": ["string", "null"], "format": "date-time"},
    ],
)  # fmt: skip
def test_a_sample_satisfies_its_schema(schema: dict[str, Any]) -> None:
    jsonschema.validate(sample(schema), schema)


def test_a_reference_to_itself_or_to_nothing_ends() -> None:
    for pointer in ("#", "#/$defs/a", "#/nowhere", "https://example.com/schema"):
        schema = {"$ref": pointer, "$defs": {"a": {"$ref": "#/$defs/a"}}}
        json.dumps(sample(schema))
