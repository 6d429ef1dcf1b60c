"""The translation of chat: messages to input items and back to messages, an answer to a message and back to items."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings, strategies as st

from api.openai_compat.chat.completion import message_of
from api.openai_compat.chat.messages import Translation
from api.openai_compat.chat.request import parse_chat
from api.web.problems import Problem
from worker.upstream.call import UpstreamCall
from worker.upstream.request import body_of
from worker.upstream.translate_chat import ChatTranslator

TEXT = st.text(max_size=20)
WORDS = st.text(min_size=1, max_size=20)
DETAIL = st.sampled_from(["auto", "low", "high"])
PARTS = st.lists(
    st.one_of(
        st.builds(lambda text: {"type": "text", "text": text}, TEXT),
        st.builds(
            lambda url, detail: {"type": "image_url", "image_url": {"url": url, "detail": detail}}, WORDS, DETAIL
        ),
        st.builds(lambda data, name: {"type": "file", "file": {"file_data": data, "filename": name}}, WORDS, WORDS),
        st.builds(lambda data: {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}, WORDS),
    ),
    min_size=1,
    max_size=3,
)
CALLS = st.lists(
    st.one_of(
        st.builds(
            lambda i, name, value: {"id": i, "type": "function", "function": {"name": name, "arguments": value}},
            *(WORDS, WORDS, TEXT),
        ),
        st.builds(
            lambda i, name, value: {"id": i, "type": "custom", "custom": {"name": name, "input": value}},
            *(WORDS, WORDS, TEXT),
        ),
    ),
    max_size=3,
)
NAME = st.one_of(st.just({}), st.builds(lambda name: {"name": name}, WORDS))


@st.composite
def conversations(draw):
    out = [{"role": draw(st.sampled_from(["developer", "system"])), "content": draw(TEXT), **draw(NAME)}]
    for _ in range(draw(st.integers(1, 3))):
        out.append({"role": "user", "content": draw(st.one_of(TEXT, PARTS)), **draw(NAME)})
        calls = draw(CALLS)
        spoken = draw(WORDS) if not calls else draw(st.one_of(st.none(), WORDS))
        answer = {"role": "assistant", "content": spoken, **(draw(NAME) if spoken else {})}
        out.append({**answer, **({"tool_calls": calls} if calls else {})})
        out += [{"role": "tool", "tool_call_id": call["id"], "content": draw(TEXT)} for call in calls]
    return out


def sent_to_chat(messages, **params):
    """The body that a provider gets over Chat Completions for these messages."""
    body = {"model": "m", "messages": messages, **params}
    job = parse_chat(body, carries_chat=True).job
    call = UpstreamCall("m", "chat", "c", job.input, job.instructions, job.passed_params())
    return body_of(call)


@given(conversations())
@settings(max_examples=30, deadline=None)
def test_messages_come_back_as_they_were(messages):
    found = Translation(messages, carries_chat=True)
    assert len(found.items) == len(found.origins)
    assert found.origins == sorted(found.origins)
    assert sent_to_chat(messages)["messages"] == messages


@given(
    st.lists(st.one_of(WORDS.map(lambda t: ("output_text", t)), WORDS.map(lambda t: ("refusal", t))), max_size=3), CALLS
)
@settings(max_examples=30, deadline=None)
def test_an_answer_can_be_sent_back(parts, calls):
    content = [{"type": kind, "text" if kind == "output_text" else "refusal": text} for kind, text in parts]
    items = [{"type": "message", "id": "m", "role": "assistant", "content": content}] if content else []
    as_items = (
        Translation([{"role": "assistant", "content": None, "tool_calls": calls}], carries_chat=False).items
        if calls
        else []
    )
    output = [{"type": "reasoning", "id": "rs", "summary": []}, *items, *as_items]
    message, _ = message_of(output)
    texts = [text for kind, text in parts if kind == "output_text"]
    refusals = [text for kind, text in parts if kind == "refusal"]
    assert (message["content"] or "") == "".join(texts)
    assert (message["refusal"] or "") == "".join(refusals)
    assert message.get("tool_calls", []) == calls
    again = Translation([message], carries_chat=False).items
    assert [item for item in again if "call_id" in item] == as_items
    assert (
        message_of(
            [{**item, "type": item.get("type", "message"), "id": "x", "content": _parts(item)} for item in again]
        )[0]
        == message
    )


def _parts(item):
    content = item.get("content") or []
    return [{"type": "output_text", "text": content}] if isinstance(content, str) else content


FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}}}
GRAMMAR = {"type": "grammar", "grammar": {"definition": "d", "syntax": "lark"}}
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": False}
PARAMS = [
    {"response_format": FORMAT},
    {"response_format": {"type": "json_object"}},
    {"tools": [{"type": "function", "function": FUNCTION}]},
    {"tools": [{"type": "custom", "custom": {"name": "c", "format": GRAMMAR}}]},
    {"tool_choice": "required"},
    {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    {
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
        }
    },
    {"logprobs": True, "top_logprobs": 3},
    {"max_completion_tokens": 9, "max_tokens": 9},
    {"reasoning_effort": "low", "verbosity": "high"},
    {"stop": ["a"], "seed": 7, "frequency_penalty": 1.5, "logit_bias": {"5": 1}, "top_k": 3},
    {"parallel_tool_calls": False, "temperature": 0.5, "top_p": 0.9, "service_tier": "flex", "prompt_cache_key": "k"},
]


@pytest.mark.parametrize("params", PARAMS)
def test_params_come_back_as_they_were(params):
    body = sent_to_chat([{"role": "user", "content": "Hi"}], **params)
    for name in ("model", "messages", "stream", "stream_options"):
        del body[name]
    assert body == params


def test_a_function_without_strict_and_parameters_is_what_chat_says_it_is():
    tools = [{"type": "function", "function": {"name": "f"}}]
    params = parse_chat(
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "tools": tools}, carries_chat=False
    )
    (tool,) = params.job.params["tools"]
    assert tool == {
        "type": "function",
        "name": "f",
        "strict": False,
        "parameters": {"type": "object", "properties": {}},
    }


SCALARS = [st.none(), st.booleans(), st.integers(-9, 9), TEXT, st.sampled_from(["text", "function", "custom", "user"])]
KEYS = ["role", "content", "type", "text", "tool_calls", "function", "name", "arguments", "id", "tools"]
FIELDS = [
    *(
        "messages",
        "tools",
        "tool_choice",
        "response_format",
        "n",
        "stream_options",
        "logprobs",
        "stop",
        "seed",
        "vigil",
    ),
    *("max_tokens", "reasoning", "reasoning_effort", "metadata", "user", "stream", "logit_bias", "vigil"),
]


def containers(inner):
    return st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4))


@given(
    st.dictionaries(st.sampled_from(FIELDS), st.recursive(st.one_of(SCALARS), containers, max_leaves=12)), st.booleans()
)
@settings(max_examples=80, deadline=None)
def test_any_body_is_taken_or_refused_with_a_problem(body, carries_chat):
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **body}
    with contextlib.suppress(Problem):  # and nothing else is raised
        assert parse_chat(body, carries_chat=carries_chat).job.input


def test_log_probabilities_of_a_chat_server_are_kept():
    rows = [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}]
    translator = ChatTranslator()
    choice = {"index": 0, "delta": {"content": "a"}, "logprobs": {"content": rows}, "finish_reason": "stop"}
    translator.feed({"id": "chatcmpl-1", "model": "m", "choices": [choice]})
    (end,) = translator.done()
    assert message_of(list(end.output))[1] == {"content": rows, "refusal": None}
    assert json.dumps(end.output)
