"""What a response reports beside its answer is read, and nothing of it that may be prose is kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from worker.jobs.errors import Failure
from worker.jobs.record import InputTransformation, Misalignment, ProviderError
from worker.jobs.states import Outcome
from worker.safety import classify
from worker.safety.attempt_state import PendingError
from worker.safety.codes import BLOCK, CodeKind, lookup
from worker.safety.stream import CheckNotice, Rejected, StreamError, Terminal
from worker.upstream.payload import parse
from worker.upstream.problems import problem_of
from worker.upstream.response_details import begins_like_block, input_transformations, moderation_blocked
from worker.upstream.translate import translate, translate_snapshot

WAITING = {"type": "response.in_progress", "sequence_number": 4}


def notices(data: dict[str, Any]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(event.use_cases, event.reasons) for event in translate(data) if isinstance(event, CheckNotice)]


@pytest.mark.parametrize("place", ["top", "response", "event", "metadata"])
def test_an_object_that_says_that_it_is_off_is_no_signal(place: str):
    for enabled, count in ((False, 0), (True, 1), (None, 1), ("false", 1)):
        fields: dict[str, Any] = {"enabled": enabled, "reasons": ["user_risk"]}
        data = {
            "top": WAITING | {"safety_buffering": fields},
            "response": WAITING | {"response": {"safety_buffering": fields}},
            "event": {"type": "response.safety_buffering", **fields},
            "metadata": {"type": "response.metadata", "metadata": {"type": "safety_buffering", **fields}},
        }[place]
        assert len(notices(data)) == count, enabled


def test_a_single_word_counts_where_the_list_is_missing_or_empty():
    one = {"reason": "review", "use_case": "bio"}
    assert notices(WAITING | {"safety_buffering": one}) == [(("bio",), ("review",))]
    assert notices(WAITING | {"safety_buffering": {**one, "reasons": ["policy"]}}) == [(("bio",), ("policy",))]


def test_a_key_that_comes_twice_counts_once_and_a_prototype_is_no_field():
    data = b'{"type":"x","safety_buffering":{"reasons":["a"],"reasons":["b"],"__proto__":{"use_cases":["c"]}}}'
    assert notices(parse(data)) == [((), ("b",))]


def test_removed_input_is_kept_without_prose():
    rows = [
        {"id": "rs_1", "type": "reasoning", "action": "removed", "reason": "turn_boundary"},
        {"id": "a secret prompt", "type": "the prompt itself", "action": "removed", "reason": 7},
        {"id": "rs_2", "action": "a sentence about it"},
        "rs_3",
    ]
    assert input_transformations({"input_transformations": rows}) == (
        InputTransformation(action="removed", type="reasoning", reason="turn_boundary", id="rs_1"),
        InputTransformation(action="removed"),
    )


MISALIGNED = {
    "error_type": "potentially_unintended_data_access",
    "detailed_explanation": "It read the secret prompt.",
    "review_target": "rt_1",
    "steer": {"message": "Stop reading the secret prompt."},
}
KEPT = Misalignment(error_type="potentially_unintended_data_access", review_target="rt_1")


@pytest.mark.parametrize(
    "data",
    [
        {"type": "error", "error": {"code": "misalignment_policy_violation", "misalignment": MISALIGNED}},
        {"type": "error", "status": 400, "stream_id": "s", "error": {"type": "x", "misalignment": MISALIGNED}},
        {"type": "error", "code": "misalignment_policy_violation", "misalignment": MISALIGNED},
    ],
)
def test_a_misalignment_object_is_kept_without_its_texts(data: dict[str, Any]):
    (event,) = translate(data)
    assert isinstance(event, StreamError)
    assert event.problem.misalignment == KEPT
    assert "secret" not in repr(classify.fault(event))


FLAGGED = {"type": "moderation_result", "flagged": True}


@pytest.mark.parametrize(
    ("moderation", "status", "withheld"),
    [
        ({"input": FLAGGED, "output": FLAGGED}, "failed", False),
        ({"input": {**FLAGGED, "blocked": True}}, "in_progress", True),
        ({"output": {**FLAGGED, "action": "blocked"}}, "completed", True),
        ({"output": [{"flagged": False}, {"decision": "block"}]}, "failed", True),
        ({"input": FLAGGED, "policy": {"input": {"mode": "block"}}}, "failed", True),
        ({"input": FLAGGED, "policy": {"input": {"mode": "block"}}}, "completed", False),
        ({"input": FLAGGED, "policy": {"output": {"mode": "block"}}}, "failed", False),
        ({"output": {**FLAGGED, "mode": "block"}}, "incomplete", True),
        ({"input": {"type": "error", "code": "blocked", "status": "blocked"}}, "failed", False),
        ("blocked", "failed", False),
    ],
)
def test_a_moderation_blocks_only_if_it_says_so(moderation: object, status: str, withheld: bool):
    response = {"id": "resp_1", "object": "response", "status": status, "moderation": moderation, "output": []}
    assert moderation_blocked(response) is withheld
    found = [e for e in translate_snapshot(response) if isinstance(e, Terminal)]
    if found:
        failure = classify.terminal(found[0])
        assert (failure is not None and failure.outcome is Outcome.BLOCKED) is withheld


@pytest.mark.parametrize("code", ["moderation_blocked", "input_blocked_by_moderation", "output_moderation_flagged"])
def test_a_code_of_a_moderation_that_blocked_is_a_block(code: str):
    assert lookup(code).kind is CodeKind.BLOCK
    assert lookup("moderation_failed").kind is not CodeKind.BLOCK


@pytest.mark.parametrize(
    ("message", "alike"),
    [
        ("This request was blocked by our safety systems. Reason: x", True),
        ("Codex error: This request was  blocked by our safety systems.", True),
        ("This user\u2019s access to this model has been temporarily limited for …", True),
        ("The server said: this request was blocked by our safety systems", False),
        ("blocked", False),
        (None, False),
    ],
)
def test_the_beginning_of_a_message_only_stops_a_retry(message: str | None, alike: bool):
    assert begins_like_block(message) is alike
    (event,) = translate({"type": "error", "error": {"message": message or "m", "code": None}})
    assert isinstance(event, StreamError)
    failure = classify.fault(event)
    assert (failure.outcome, failure.block, failure.retryable) == (Outcome.SERVER_ERROR, None, not alike)


def test_a_refusal_in_such_words_stays_a_refusal():
    problem = problem_of({"error": {"message": "This content was flagged for review."}})
    outcomes = {status: classify.rejected(Rejected(status, problem)).outcome.value for status in (400, 429, 503)}
    assert outcomes == {400: "bad_request", 429: "server_error", 503: "server_error"}
    assert not classify.rejected(Rejected(503, problem)).retryable


@pytest.mark.parametrize(
    ("provider", "named"),
    [
        (ProviderError(code="rate_limit_exceeded", http_status=200), True),
        (ProviderError(code="429", http_status=200), False),
        (ProviderError(code="server_error", type="error", http_status=200), False),
        (ProviderError(http_status=429), True),
        (None, False),
    ],
)
def test_a_cause_is_named_by_a_code_or_by_the_status_of_a_refusal(provider: ProviderError | None, named: bool):
    failure = Failure(Outcome.RATE_LIMITED, "rate_limited", "account", retryable=True, scope="model", provider=provider)
    assert classify.names_cause(failure) is named
    kept = classify.after_check(failure)
    assert (kept.code, kept.retryable, kept.scope) == ("failed_after_check", False, "attempt")
    cut = Failure(Outcome.STREAM_CUT, "no_terminal", "network", retryable=True)
    assert classify.after_check(cut) is cut


def test_a_later_report_of_the_same_block_may_say_that_the_end_user_is_limited():
    pending = PendingError()
    for param in (None, "safety_identifier"):
        (event,) = translate({"type": "error", "error": {"code": "cyber_policy_violation", "param": param}})
        assert isinstance(event, StreamError)
        pending.update(classify.fault(event), BLOCK)
    assert pending.block is not None
    assert pending.block.block is not None
    assert (pending.block.block.scope, pending.block.block.category) == ("end_user", "cyber")
    assert "end user" in pending.block.block.advice


@pytest.mark.parametrize("code", ["string_above_max_length", None])
def test_a_wrong_safety_identifier_is_a_wrong_request_not_a_limit(code: str | None):
    error = {"type": "invalid_request_error", "code": code, "param": "safety_identifier", "message": "m"}
    (event,) = translate({"type": "error", "error": error})
    assert isinstance(event, StreamError)
    failure = classify.fault(event)
    assert (failure.block, failure.retryable) == (None, False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=20), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_value_is_read_without_a_fault(value: Any):
    response = {
        "status": "failed",
        "moderation": value,
        "input_transformations": value,
        "error": {"misalignment": value},
    }
    translate_snapshot(response)
    translate(WAITING | {"safety_buffering": value})
