"""What a request would have the provider open is found wherever it stands, and what is the app's own is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from worker.jobs.request_references import find_references, is_shared, pointer_of


def names(params: dict[str, Any] | None = None, items: Any = "x") -> dict[str, str | None]:
    found = find_references(params or {}, items)
    assert found is not None
    return {pointer_of(one.path): one.name for one in found.names}


def addresses(params: dict[str, Any] | None = None, items: Any = "x") -> dict[str, str]:
    found = find_references(params or {}, items)
    assert found is not None
    return {pointer_of(one.path): one.text for one in found.addresses}


def part(**fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [fields]}]


STATE = [
    ({"previous_response_id": "resp_1"}, "/params/previous_response_id"),
    ({"PREVIOUS_RESPONSE_ID": "resp_1"}, "/params/PREVIOUS_RESPONSE_ID"),
    ({"previousResponseId": "resp_1"}, "/params/previousResponseId"),
    ({"conversation": "conv_1"}, "/params/conversation"),
    ({"conversation": {"id": "conv_1"}}, "/params/conversation/id"),
    ({"conversation": {}}, "/params/conversation"),
    ({"prompt": {"id": "pmpt_1", "version": "2"}}, "/params/prompt/id"),
    (
        {"prompt": {"variables": {"doc": {"type": "input_file", "file_id": "file-1"}}}},
        "/params/prompt/variables/doc/file_id",
    ),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "/params/tools/0/vector_store_ids/0"),
    ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, "/params/tools/0/container"),
    (
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"]}}]},
        "/params/tools/0/container/file_ids/0",
    ),
    (
        {"tools": [{"type": "shell", "environment": {"type": "container_reference", "container_id": "cntr_1"}}]},
        "/params/tools/0/environment/container_id",
    ),
    (
        {"tools": [{"type": "shell", "environment": {"skills": [{"type": "skill_reference", "skill_id": "s1"}]}}]},
        "/params/tools/0/environment/skills/0/skill_id",
    ),
    (
        {"tools": [{"type": "image_generation", "input_image_mask": {"file_id": "file-1"}}]},
        "/params/tools/0/input_image_mask/file_id",
    ),
    ({"tools": [{"type": "mcp", "connector_id": "connector_x"}]}, "/params/tools/0/connector_id"),
    (
        {"tool_resources": {"file_search": {"vector_store_ids": ["vs_1"]}}},
        "/params/tool_resources/file_search/vector_store_ids/0",
    ),
    ({"audio": {"voice": {"id": "voice_1"}}}, "/params/audio/voice/id"),
    ({"cached_content": "cachedContents/1"}, "/params/cached_content"),
    ({"some_new_thing_id": 5}, "/params/some_new_thing_id"),
    ({"extra_body": {"thread_id": "thread_1"}}, "/params/extra_body/thread_id"),
]


@pytest.mark.parametrize(("params", "pointer"), STATE, ids=[pointer for _, pointer in STATE])
def test_names_of_state_in_params(params, pointer):
    assert pointer in names(params)


ITEMS = [
    ([{"type": "item_reference", "id": "msg_1"}], "/input/0/id"),
    ([{"id": "msg_1"}], "/input/0/id"),
    ([{"type": "image_generation_call", "id": "ig_1", "result": None}], "/input/0/id"),
    (part(type="input_file", file_id="file-1"), "/input/0/content/0/file_id"),
    (part(type="input_image", file_id="file-1", detail="low"), "/input/0/content/0/file_id"),
    (part(type="file", file={"file_id": "file-1"}), "/input/0/content/0/file/file_id"),
    (part(type="file", file={"id": "file-1", "name": "x"}), "/input/0/content/0/file/id"),
    ([{"type": "code_interpreter_call", "id": "ci_1", "code": "1", "container_id": "cntr_1"}], "/input/0/container_id"),
    (
        [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "file_id": "file-1"}]}],
        "/input/0/output/0/file_id",
    ),
    ([{"type": "computer_call_output", "output": {"file_id": "file-1"}}], "/input/0/output/file_id"),
    ([{"role": "assistant", "audio": {"id": "audio_1"}}], "/input/0/audio/id"),
]


@pytest.mark.parametrize(("items", "pointer"), ITEMS, ids=[pointer for _, pointer in ITEMS])
def test_names_of_state_in_the_input(items, pointer):
    assert pointer in names(items=items)


OWN = [
    {"reasoning": {"effort": "high"}, "text": {"format": {"type": "text"}}, "tools": [], "prompt": "text"},
    {"previous_response_id": None, "conversation": None, "file_ids": [], "tools": [{"vector_store_ids": []}]},
    {"client_metadata": {"session_id": "s", "thread_id": "t", "x": '{"turn_id": 1}'}},  # as Codex sends it
    {"metadata": {"file_id": "file-1", "conversation": "mine"}, "prompt_cache_key": "conv_1", "stop_token_ids": [1, 2]},
    {
        "tools": [
            {
                "type": "function",
                "name": "open",
                "description": "Open https://intranet.local/x by its file_id.",
                "parameters": {
                    "type": "object",
                    "properties": {"file_id": {"type": "string"}, "url": {"type": "string"}},
                },
            },
            {"type": "function", "function": {"name": "f", "parameters": {"properties": {"conversation": {"id": 1}}}}},
            {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "4g"}},
            {"type": "web_search", "filters": {"allowed_domains": ["example.com"]}, "user_location": {"city": "Rome"}},
        ],
        "tool_choice": {"type": "function", "name": "open"},
    },
    {"text": {"format": {"type": "json_schema", "name": "s", "schema": {"properties": {"thread_id": {"const": "x"}}}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"properties": {"id": {}}}}}},
    {"tools": [{"type": "mcp", "headers": {"X-Session-Id": "1"}, "server_label": "x"}], "valid": "x", "grid": 1},
]


@pytest.mark.parametrize("params", OWN)
def test_what_names_nothing_of_the_provider_passes(params):
    assert names(params) == {}
    assert addresses(params) == {}


def test_an_earlier_answer_may_be_sent_back_as_it_came():
    output = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc", "status": None},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"file_id": "x"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "http://10.0.0.1/ is down"},
        {"type": "web_search_call", "id": "ws_1", "action": {"type": "open_page", "url": "http://localhost/"}},
        {"type": "file_search_call", "id": "fs_1", "queries": ["a"], "results": [{"file_id": "file-1"}]},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": "see http://localhost/",
                    "annotations": [{"type": "container_file_citation", "container_id": "c", "file_id": "f"}],
                }
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_2", "type": "function", "function": {"name": "f"}}],
        },
        {"role": "user", "content": "Look at http://169.254.169.254/ for me."},
    ]
    assert names(items=output) == {}
    assert addresses(items=output) == {}


ADDRESSES = [
    ({"tools": [{"type": "mcp", "server_url": "https://a.example"}]}, "x", "/params/tools/0/server_url"),
    ({"tools": [{"type": "mcp", "server": "http://a.example"}]}, "x", "/params/tools/0/server"),
    ({"tools": [{"type": "x", "deep": {"list": ["\thttp://a.example"]}}]}, "x", "/params/tools/0/deep/list/0"),
    ({"web_search_options": {"proxy": "10.0.0.1:3128"}}, "x", "/params/web_search_options/proxy"),
    ({"x": {"callbackUrl": "gopher://a"}}, "x", "/params/x/callbackUrl"),
    ({"x": {"source": "s3://bucket/key"}}, "x", "/params/x/source"),
    ({}, part(type="input_image", image_url="https://a.example/p.png"), "/input/0/content/0/image_url"),
    ({}, part(type="image_url", image_url={"url": "https://a.example"}), "/input/0/content/0/image_url/url"),
    ({}, part(type="input_file", file_url="https://a.example"), "/input/0/content/0/file_url"),
    ({}, part(type="x", image="HTTP:\\\\a.example"), "/input/0/content/0/image"),
]


@pytest.mark.parametrize(("params", "items", "pointer"), ADDRESSES, ids=[pointer for *_, pointer in ADDRESSES])
def test_addresses_in_tools_and_input(params, items, pointer):
    assert pointer in addresses(params, items)


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


@given(
    around=JSON, depth=st.integers(0, 150), key=st.sampled_from(["file_id", "vector_store_ids", "previous_response_id"])
)
def test_no_depth_and_no_company_hides_a_name(around, depth, key):
    inner: Any = {key: ["x_1"], "z": around}
    for level in range(depth):
        inner = {"k": inner} if level % 2 else [inner, around]
    assert "x_1" in names({"tools": inner}).values()


@given(params=st.dictionaries(st.text(max_size=6), JSON, max_size=4), items=JSON)
def test_any_json_is_searched_without_a_fault(params, items):
    assert find_references(params, items) is not None


def test_a_large_request_may_be_left_to_a_thread():
    params = {"tools": [{f"k{n}": n for n in range(50)} for _ in range(50)]}
    assert find_references(params, "x", 1000) is None
    assert find_references(params, "x", 10_000) is not None


def test_operators_may_share_names():
    patterns = ("vs_team", "file-pub*")
    assert [is_shared(name, patterns) for name in ("vs_team", "vs_teams", "file-pub9", "file-x", None)] == [
        *(True, False, True, False, False)
    ]
    assert is_shared(None, ("*",))
