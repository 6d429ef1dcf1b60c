from __future__ import annotations

from typing import Any

import pytest

from tests.upstream.rawserver import MESSAGE, SNAPSHOT, completed, created, delta
from worker.jobs.record import Usage
from worker.jobs.states import RetryModelState
from worker.safety.stream import (
    CallDone,
    CheckNotice,
    Created,
    Delta,
    Flagged,
    ItemDone,
    Keepalive,
    PartDone,
    ProviderProblem,
    Served,
    StreamError,
    StreamEvent,
    Terminal,
)
from worker.upstream.retry_after import delay_in_message
from worker.upstream.translate import NOT_TEXT, translate, translate_snapshot

BUFFERING = {"use_cases": ["cyber"], "reasons": ["user_risk"], "retry_model": "gpt-5.6-luna"}
NOTICE = CheckNotice(4, ("cyber",), ("user_risk",), "gpt-5.6-luna", RetryModelState.NAMED)
WAITING = {"type": "response.in_progress", "sequence_number": 4, "response": SNAPSHOT}


def metadata(**values: Any) -> dict[str, Any]:
    return {"type": "response.metadata", "sequence_number": 4, "response_id": "resp_raw01", "metadata": values}


def notices(data: object) -> list[CheckNotice]:
    return [event for event in translate(data) if isinstance(event, CheckNotice)]


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (delta(5, "Hi"), [Delta(5, "Hi")]),
        (delta(5, "Hi", obfuscation="p3X", logprobs=[]), [Delta(5, "Hi")]),
        (delta(5, ""), [Keepalive(5, "response.output_text.delta")]),
        ({"type": "response.output_text.delta", "delta": "Hi"}, [Delta(None, "Hi")]),
        (delta(5, "No") | {"type": "response.refusal.delta"}, [Delta(5, "No", "refusal")]),
        (delta(5, "hm") | {"type": "response.reasoning_text.delta"}, [Delta(5, "hm", "other")]),
        (
            delta(5, "{") | {"type": "response.function_call_arguments.delta"},
            [Delta(5, "{", "other"), CallDone(5, 0, "", "function_call", "arguments", "{", is_piece=True)],
        ),
        ({"type": "response.new.delta", "sequence_number": 5, "delta": {"a": 1}}, [Delta(5, NOT_TEXT, "other")]),
        ({"type": "response.new.delta", "sequence_number": 5, "delta": {}}, [Keepalive(5, "response.new.delta")]),
        ({"type": "response.new.delta", "sequence_number": 5}, [Keepalive(5, "response.new.delta")]),
        (created(0), [Created(0, "resp_raw01", "gpt-5.6-sol", "in_progress", "default")]),
        (created(0, status="queued"), [Created(0, "resp_raw01", "gpt-5.6-sol", "queued", "default")]),
        (
            {"type": "response.queued", "sequence_number": 1, "response": {"id": "r"}},
            [Created(1, "r", None, "queued")],
        ),
        (WAITING, [Created(4, "resp_raw01", "gpt-5.6-sol", "in_progress", "default")]),
        (
            {"type": "response.output_item.done", "sequence_number": 8, "output_index": 2, "item": MESSAGE},
            [ItemDone(8, 2, MESSAGE)],
        ),
        ({"type": "response.content_part.done", "sequence_number": 7, "part": {}}, [PartDone(7)]),
        ({"type": "response.output_item.added", "sequence_number": 2}, [Keepalive(2, "response.output_item.added")]),
        ({"type": "keepalive", "sequence_number": 3}, [Keepalive(3, "keepalive")]),
        ({"type": "response.output_text.done", "sequence_number": 3}, [Keepalive(3, "response.output_text.done")]),
        (
            {"type": "response.output_text.done", "sequence_number": 3, "output_index": 1, "text": "Hi"},
            [PartDone(3, 1, 0, "Hi")],
        ),
        (
            {"type": "response.refusal.done", "sequence_number": 3, "content_index": 2, "refusal": "No"},
            [PartDone(3, 0, 2, "No", "refusal")],
        ),
        ({"type": "something.new", "sequence_number": 3, "error": {"code": "x"}}, [Keepalive(3, "something.new")]),
    ],
)
def test_ordinary_events(data: dict[str, Any], events: list[StreamEvent]) -> None:
    assert translate(data) == events


@pytest.mark.parametrize(
    "data",
    [
        metadata(type="safety_buffering", **BUFFERING),
        WAITING | {"safety_buffering": BUFFERING},
        {"type": "response.safety_buffering", "sequence_number": 4, **BUFFERING},
        {"type": "response.safety_buffering", "sequence_number": 4, "safety_buffering": BUFFERING},
        {"type": "keepalive", "sequence_number": 4, "safety_buffering": BUFFERING},
        WAITING | {"response": SNAPSHOT | {"safety_buffering": BUFFERING}},
    ],
)
def test_each_form_of_the_signal_is_a_notice(data: dict[str, Any]) -> None:
    assert notices(data) == [NOTICE]


@pytest.mark.parametrize("value", [False, True, None, "yes", 1, [BUFFERING]])
def test_a_top_level_value_that_is_no_object_is_no_signal_and_suppresses_the_rest(value: object) -> None:
    assert notices(metadata(type="safety_buffering", **BUFFERING) | {"safety_buffering": value}) == []
    assert notices(WAITING | {"response": SNAPSHOT | {"safety_buffering": BUFFERING}, "safety_buffering": value}) == []
    assert notices({"type": "response.safety_buffering", **BUFFERING, "safety_buffering": value}) == []


def test_the_top_level_object_wins_over_the_metadata() -> None:
    data = metadata(type="safety_buffering", use_cases=["bio"]) | {"safety_buffering": {"use_cases": ["cyber"]}}
    assert [notice.use_cases for notice in notices(data)] == [("cyber",)]


@pytest.mark.parametrize(
    ("buffering", "model", "state"),
    [
        ({}, None, RetryModelState.ABSENT),
        ({"retry_model": None}, None, RetryModelState.NONE),
        ({"retry_model": "m"}, "m", RetryModelState.NAMED),
        ({"retry_model": 7}, None, RetryModelState.ABSENT),
        ({"retry_model": ""}, None, RetryModelState.ABSENT),
    ],
)
def test_retry_model_has_three_states(buffering: dict[str, Any], model: str | None, state: RetryModelState) -> None:
    (notice,) = notices(WAITING | {"safety_buffering": buffering})
    assert (notice.retry_model, notice.retry_model_state) == (model, state)


def test_wrong_types_in_a_notice_are_left_out_and_long_lists_are_cut() -> None:
    (notice,) = notices(
        WAITING | {"safety_buffering": {"use_cases": "cyber", "reasons": ["a", 1, None, "b" * 99, *"x" * 20]}}
    )
    assert notice.use_cases == ()
    assert notice.reasons[:2] == ("a", "b" * 64)
    assert len(notice.reasons) == 8


@pytest.mark.parametrize(
    "data",
    [
        delta(4),
        {"type": "response.output_item.done", "sequence_number": 4, "item": MESSAGE},
        {"type": "response.content_part.done", "sequence_number": 4, "part": {}},
        completed(4),
        {"type": "response.failed", "sequence_number": 4, "response": SNAPSHOT},
        {"type": "error", "sequence_number": 4, "code": "x", "message": "m"},
    ],
)
def test_a_notice_on_output_or_on_an_end_rides_and_comes_first(data: dict[str, Any]) -> None:
    plain = translate(data)
    assert translate(data | {"safety_buffering": BUFFERING}) == [NOTICE._replace(piggybacked=True), *plain]


@pytest.mark.parametrize("data", [WAITING, created(4), {"type": "keepalive", "sequence_number": 4}, delta(4, "")])
def test_a_notice_on_anything_else_does_not_ride(data: dict[str, Any]) -> None:
    assert translate(data | {"safety_buffering": BUFFERING})[0] == NOTICE


@pytest.mark.parametrize(
    ("value", "programs"),
    [
        (["trusted_access_for_cyber"], ("trusted_access_for_cyber",)),
        (["other", "trusted_access_for_cyber", 3], ("trusted_access_for_cyber",)),
        (["other"], None),
        ("trusted_access_for_cyber", None),
        ({"trusted_access_for_cyber": 1}, None),
    ],
)
def test_a_verification_recommendation_flags_the_account(value: object, programs: tuple[str, ...] | None) -> None:
    found = [e for e in translate(metadata(openai_verification_recommendation=value)) if isinstance(e, Flagged)]
    assert found == ([] if programs is None else [Flagged(programs)])


def test_opaque_moderation_metadata_is_only_life() -> None:
    assert translate(metadata(openai_chatgpt_moderation_metadata="x")) == [Keepalive(4, "response.metadata")]


@pytest.mark.parametrize(
    ("headers", "model"),
    [
        ({"OpenAI-Model": ["luna"]}, "luna"),
        ({"openai-model": "luna"}, "luna"),
        ({"X-OpenAI-Model": "luna"}, "luna"),
        ({"openai-model": ["luna", "sol"]}, None),
        ({"openai-model": []}, None),
        ({"openai-model": [7]}, None),
        ({"x-codex-safety-buffering-faster-model": "luna"}, None),
        (["openai-model"], None),
    ],
)
def test_headers_inside_the_stream_name_the_served_model(headers: object, model: str | None) -> None:
    expected = [] if model is None else [Served(model)]
    assert [e for e in translate(created(0, headers=headers)) if isinstance(e, Served)] == expected
    assert [e for e in translate(created(0) | {"headers": headers}) if isinstance(e, Served)] == expected
    assert [e for e in translate(delta(3) | {"headers": headers}) if isinstance(e, Served)] == expected


def test_the_headers_of_the_snapshot_win() -> None:
    data = created(0, headers={"openai-model": "inner"}) | {"headers": {"openai-model": "outer"}}
    assert Served("inner") in translate(data)
    assert Served("outer") not in translate(data)


CYBER = {"type": "invalid_request", "code": "cyber_policy", "message": "withheld", "param": None}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (
            {"type": "error", "sequence_number": 6, "error": CYBER},
            ProviderProblem("cyber_policy", "invalid_request", message="withheld"),
        ),
        (
            {"type": "error", "sequence_number": 6, "code": "server_error", "message": "oops", "param": "p"},
            ProviderProblem("server_error", None, "p", message="oops"),
        ),
        ({"type": "error", "sequence_number": 6, "error": "oops"}, ProviderProblem(None, None, message="oops")),
        ({"type": "error", "sequence_number": 6}, ProviderProblem(None, None)),
        (
            {"sequence_number": 6, "error": CYBER},
            ProviderProblem("cyber_policy", "invalid_request", message="withheld"),
        ),
    ],
)
def test_error_events_nested_and_flat_are_faults(data: dict[str, Any], problem: ProviderProblem) -> None:
    assert translate(data) == [StreamError(6, problem, "error_event")]


def test_a_completed_response_carries_everything() -> None:
    usage = {
        "input_tokens": 40,
        "input_tokens_details": {"cached_tokens": 7},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 49,
    }
    assert translate(completed(9, usage=usage, service_tier="flex")) == [
        Terminal(
            9,
            "completed",
            model="gpt-5.6-sol",
            usage=Usage(input_tokens=40, cached_input_tokens=7, output_tokens=9, reasoning_tokens=4, total_tokens=49),
            output=(MESSAGE,),
            service_tier="flex",
            response_id="resp_raw01",
        )
    ]


def terminal(kind: str, **changes: Any) -> Terminal:
    (event,) = translate({"type": f"response.{kind}", "sequence_number": 9, "response": SNAPSHOT | changes})
    assert isinstance(event, Terminal)
    return event


@pytest.mark.parametrize("reason", ["content_filter", "max_output_tokens", "max_messages", "steered", "new"])
def test_an_incomplete_response_says_why(reason: str) -> None:
    found = terminal("incomplete", status="incomplete", incomplete_details={"reason": reason})
    assert (found.status, found.incomplete_reason, found.carrier) == ("incomplete", reason, "incomplete")


def test_a_failed_response_has_its_problem() -> None:
    found = terminal(
        "failed", status="failed", error={"code": "rate_limit_exceeded", "message": "try again in 1.898s."}
    )
    assert found.problem == ProviderProblem(
        "rate_limit_exceeded", None, retry_after=1.898, message="try again in 1.898s."
    )
    assert (found.status, found.carrier) == ("failed", "response_failed")


def test_a_completed_event_around_a_failed_snapshot_is_no_success() -> None:
    found = terminal("completed", status="failed", error={"code": "cyber_policy"})
    assert found.status == "failed"
    assert found.problem == ProviderProblem("cyber_policy", None)


def test_a_cancelled_response_ends() -> None:
    assert terminal("cancelled", status="cancelled").status == "cancelled"


def test_messages_are_cut() -> None:
    found = terminal("failed", error={"code": "c" * 999, "message": "m" * 9999})
    assert found.problem is not None
    assert len(found.problem.message or "") == 4000
    assert len(found.problem.code or "") == 128


def test_access_programs_are_noticed_in_fields_and_never_in_prose() -> None:
    def mentions(**error: Any) -> bool:
        problem = terminal("failed", error=error).problem
        return problem is not None and problem.mentions_access

    assert mentions(param="access_programs.cyber")
    assert mentions(access_programs={})
    assert not mentions(message="access_programs")


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please try again in 1.898s.", 1.898),
        ("try again in 28ms", 0.028),
        ("Try again in 35 seconds.", 35.0),
        ("try again in 1m2s", 62.0),
        ("try again in 1h2m3.5s. Visit", 3723.5),
        ("try again in 2 minutes and 3 seconds", 123.0),
        ("Please retry after 20 seconds", 20.0),
        ("try again in 6 days", 518400.0),
        ("try again in a while", None),
        ("try again in 5 sheep", None),
        ("try again later", None),
        ("", None),
        ("1.5s", None),
        ("x" * 10_000 + "try again in 1s", None),
        ("try again in " + "1" * 10_000, None),
    ],
)
def test_a_delay_is_read_from_prose(message: str, seconds: float | None) -> None:
    assert delay_in_message(message) == seconds


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (SNAPSHOT, Created),
        (SNAPSHOT | {"status": "queued"}, Created),
        (SNAPSHOT | {"status": "completed", "output": [MESSAGE]}, Terminal),
        (SNAPSHOT | {"status": "cancelled"}, Terminal),
        (SNAPSHOT | {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, Terminal),
        ({"error": CYBER}, StreamError),
        ({}, Keepalive),
        ([], Keepalive),
        (None, Keepalive),
    ],
)
def test_a_polled_snapshot(data: object, kind: type) -> None:
    assert [type(event) for event in translate_snapshot(data)] == [kind]


def test_a_polled_block_has_its_code() -> None:
    (event,) = translate_snapshot(SNAPSHOT | {"status": "failed", "error": {"code": "bio_policy", "message": "m"}})
    assert isinstance(event, Terminal)
    assert (event.status, event.problem) == ("failed", ProviderProblem("bio_policy", None, message="m"))


def test_a_polled_snapshot_may_carry_a_notice_and_the_served_model() -> None:
    events = translate_snapshot(SNAPSHOT | {"safety_buffering": BUFFERING, "headers": {"openai-model": "luna"}})
    assert [type(event) for event in events] == [Served, CheckNotice, Created]
