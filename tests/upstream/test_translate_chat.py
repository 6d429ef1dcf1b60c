from __future__ import annotations

from typing import Any

from hypothesis import given, strategies as st

from tests.upstream.test_translate import BUFFERING
from tests.upstream.test_translate_any import JSON
from worker.jobs.record import Usage
from worker.safety.stream import (
    CheckNotice,
    Created,
    Delta,
    Keepalive,
    ProviderProblem,
    StreamError,
    StreamEvent,
    Terminal,
)
from worker.upstream.translate_chat import ChatTranslator


def unstreamed(data: object) -> list[StreamEvent]:
    """Return the events of a chat completion that came as one body."""
    translator = ChatTranslator()
    return [*translator.feed(data), *translator.end()]


def chunk(finish: str | None = None, model: str = "gpt-5.6-sol", **content: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": model,
        "choices": [{"index": 0, "delta": content, "finish_reason": finish}],
    }


def usage() -> dict[str, Any]:
    tokens = {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    return {"id": "chatcmpl-1", "model": "gpt-5.6-sol", "choices": [], "usage": tokens}


def play(*chunks: object) -> tuple[ChatTranslator, list[StreamEvent]]:
    translator = ChatTranslator()
    return translator, [event for data in chunks for event in translator.feed(data)]


def ends(translator: ChatTranslator) -> Terminal:
    (event,) = translator.done()
    assert isinstance(event, Terminal)
    return event


def test_an_ordinary_stream() -> None:
    translator, events = play(
        chunk(role="assistant", content=""), chunk(content="Hel"), chunk(content="lo."), chunk("stop"), usage()
    )
    assert events == [
        Created(None, "chatcmpl-1", "gpt-5.6-sol", "in_progress"),
        Delta(None, "Hel"),
        Delta(None, "lo."),
        Keepalive(None, "chat.completion.chunk"),
        Keepalive(None, "chat.completion.chunk"),
    ]
    end = ends(translator)
    assert (end.status, end.carrier, end.response_id) == ("completed", "chat_chunk", "chatcmpl-1")
    assert end.usage == Usage(
        input_tokens=9, cached_input_tokens=2, output_tokens=5, reasoning_tokens=3, total_tokens=14
    )
    (item,) = end.output
    assert item["type"] == "message"
    assert item["content"] == [{"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []}]


def test_there_is_one_terminal_event() -> None:
    translator, _ = play(chunk("stop", content="x"))
    assert len(translator.done()) == 1
    assert translator.done() == []
    assert translator.end() == []


def test_a_refusal_is_told_apart() -> None:
    translator, events = play(chunk(refusal="Sorry, "), chunk(refusal="no."), chunk("stop"))
    assert events[1:3] == [Delta(None, "Sorry, ", "refusal"), Delta(None, "no.", "refusal")]
    assert ends(translator).output[0]["content"] == [{"type": "refusal", "refusal": "Sorry, no."}]


def test_content_filter_and_length_are_incomplete() -> None:
    for finish, reason in (("content_filter", "content_filter"), ("length", "max_output_tokens"), ("new", "new")):
        end = ends(play(chunk(content="x"), chunk(finish))[0])
        assert (end.status, end.incomplete_reason, end.carrier) == ("incomplete", reason, "chat_chunk")


def test_without_finish_reason_and_done_there_is_no_terminal_event() -> None:
    assert play(chunk(content="x"))[0].end() == []


def test_with_a_finish_reason_the_end_of_the_stream_is_enough() -> None:
    assert len(play(chunk("stop", content="x"))[0].end()) == 1


def test_done_before_any_chunk_says_nothing() -> None:
    assert ChatTranslator().done() == []


def test_an_error_chunk_is_a_fault_and_no_success_follows() -> None:
    error = {"error": {"code": "cyber_policy", "type": "invalid_request", "message": "m", "param": None}}
    translator, events = play(chunk(content="x"), chunk("stop"), error)
    assert events[-1] == StreamError(
        None, ProviderProblem("cyber_policy", "invalid_request", message="m"), "chat_chunk"
    )
    assert translator.done() == []
    assert translator.end() == []


def test_tool_calls_become_function_call_items() -> None:
    def call(**values: Any) -> dict[str, Any]:
        return chunk(tool_calls=[{"index": 0, **values}])

    translator, events = play(
        call(id="call_1", type="function", function={"name": "f", "arguments": ""}),
        call(function={"arguments": '{"a"'}),
        call(function={"arguments": ":1}"}),
        chunk("tool_calls"),
    )
    assert [e.kind for e in events if isinstance(e, Delta)] == ["other"] * 3
    (item,) = ends(translator).output
    assert {k: item[k] for k in ("type", "call_id", "name", "arguments")} == {
        "type": "function_call",
        "call_id": "call_1",
        "name": "f",
        "arguments": '{"a":1}',
    }


def test_the_last_model_named_counts() -> None:
    assert ends(play(chunk(content="x"), chunk("stop", model="gpt-5.6-luna"))[0]).model == "gpt-5.6-luna"


def test_other_choices_are_only_life() -> None:
    data = chunk(content="x")
    data["choices"][0]["index"] = 1
    assert play(chunk(), data)[1][-1] == Keepalive(None, "chat.completion.chunk")


def test_a_notice_may_ride_on_a_chunk() -> None:
    _, events = play(chunk(), chunk(content="x") | {"safety_buffering": BUFFERING})
    assert isinstance(events[1], CheckNotice)
    assert events[1].piggybacked
    assert events[2] == Delta(None, "x")


def test_an_unstreamed_completion_is_the_same() -> None:
    message = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    events = unstreamed({"id": "chatcmpl-2", "model": "m", "choices": [message], "usage": usage()["usage"]})
    assert [type(event) for event in events] == [Created, Delta, Terminal]


CHUNKS = st.dictionaries(
    st.sampled_from(["id", "model", "choices", "usage", "error", "service_tier", "headers"]),
    JSON
    | st.lists(
        st.dictionaries(
            st.sampled_from(["index", "delta", "message", "finish_reason"]),
            JSON
            | st.dictionaries(
                st.sampled_from(["content", "refusal", "tool_calls", "function_call", "reasoning"]), JSON
            ),
        )
    ),
)


@given(st.lists(JSON | CHUNKS, max_size=4))
def test_no_chunk_raises(chunks: list[object]) -> None:
    translator, events = play(*chunks)
    for event in [*events, *translator.end(), *translator.done()]:
        assert isinstance(event, StreamEvent)
