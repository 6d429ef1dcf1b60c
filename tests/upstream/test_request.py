from __future__ import annotations

import copy
from typing import Any

import pytest

from worker.upstream.call import OWNED_PARAMS, UpstreamCall
from worker.upstream.request import body_of, path_of


def call(mode: str = "background", **values: Any) -> UpstreamCall:
    return UpstreamCall(**({"model": "gpt-5.6-sol", "mode": mode, "client_request_id": "c1", "input": "hi"} | values))


QUIET = {"include_obfuscation": False}


def test_a_background_call_is_always_stored() -> None:
    expected = {"model": "gpt-5.6-sol", "input": "hi", "stream": True, "background": True, "store": True}
    assert body_of(call(store=False)) == expected | {"stream_options": QUIET}
    assert path_of(call()) == "/responses"


@pytest.mark.parametrize("store", [True, False])
def test_a_foreground_call_is_stored_as_asked(store: bool) -> None:
    body = body_of(call("stream", store=store))
    assert body["store"] is store
    assert "background" not in body


def test_params_pass_as_they_are_less_what_vigil_owns() -> None:
    owned = dict.fromkeys(OWNED_PARAMS, "x")
    params = {"reasoning": {"effort": "high"}, "new": [1, {"a": None}], **owned}
    before = copy.deepcopy(params)
    body = body_of(call(params=params, instructions="be brief", safety_identifier="u_1"))
    assert body["reasoning"] == {"effort": "high"}
    assert body["new"] == [1, {"a": None}]
    assert (body["model"], body["input"], body["instructions"]) == ("gpt-5.6-sol", "hi", "be brief")
    assert (body["stream"], body["background"], body["store"], body["safety_identifier"]) == (True, True, True, "u_1")
    assert params == before


def test_a_caller_may_ask_for_obfuscation() -> None:
    params = {"stream_options": {"include_obfuscation": True, "x": 1}}
    assert body_of(call(params=params))["stream_options"] == {"include_obfuscation": True, "x": 1}


def test_a_call_shows_no_content() -> None:
    shown = repr(call(input="secret", instructions="secret", params={"a": "secret"}))
    assert "secret" not in shown


def chat(job_input: object = "hi", **values: Any) -> dict[str, Any]:
    return body_of(call("chat", input=job_input, **values))


def test_a_chat_call() -> None:
    assert chat(instructions="be brief", safety_identifier="u_1") == {
        "model": "gpt-5.6-sol",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "safety_identifier": "u_1",
    }
    assert path_of(call("chat")) == "/chat/completions"


def test_chat_params_have_their_own_names() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    tool = {"type": "function", "name": "f", "parameters": {}, "strict": True}
    body = chat(
        params={
            "max_output_tokens": 5,
            "reasoning": {"effort": "low", "summary": "auto"},
            "text": {"format": schema, "verbosity": "low"},
            "tools": [tool, {"type": "function", "function": {"name": "g"}}, {"type": "web_search"}],
            "tool_choice": {"type": "function", "name": "f"},
            "temperature": 0.1,
        }
    )
    assert body["max_completion_tokens"] == 5
    assert body["reasoning_effort"] == "low"
    assert body["verbosity"] == "low"
    assert body["temperature"] == 0.1
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
    }
    function = {"name": "f", "parameters": {}, "strict": True}
    assert body["tools"] == [
        {"type": "function", "function": function},
        {"type": "function", "function": {"name": "g"}},
        {"type": "web_search"},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert not {"max_output_tokens", "reasoning", "text"} & body.keys()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [({"type": "text"}, None), ({"type": "json_object"}, {"type": "json_object"}), ({}, None), ("text", None)],
)
def test_chat_response_formats(wanted: object, expected: object) -> None:
    assert chat(params={"text": {"format": wanted}}).get("response_format") == expected


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"role": "user", "content": "a"}, {"role": "user", "content": "a"}),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
        ),
        (
            {
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}],
            },
            {"role": "assistant", "content": "ab"},
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "data:x", "detail": "low"}]},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}]},
        ),
        (
            {"role": "user", "content": [{"type": "input_file", "file_id": "f1"}]},
            {"role": "user", "content": [{"type": "file", "file": {"file_id": "f1"}}]},
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]},
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]},
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": "42"},
            {"role": "tool", "tool_call_id": "c", "content": "42"},
        ),
        ("bare", {"role": "user", "content": "bare"}),
        ({"type": "new_kind", "x": 1}, {"type": "new_kind", "x": 1}),
    ],
)
def test_input_items_become_messages(item: object, message: dict[str, Any]) -> None:
    assert chat([item])["messages"] == [message]


def test_function_calls_join_the_assistant_message_before_them() -> None:
    items = [
        {"role": "assistant", "content": "let me see"},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
    ]
    before = copy.deepcopy(items)
    (message,) = chat(items)["messages"]
    assert [tool["id"] for tool in message["tool_calls"]] == ["c1", "c2"]
    assert items == before


def test_a_function_call_alone_makes_its_message() -> None:
    items = [{"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}]
    assert chat(items)["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        }
    ]
