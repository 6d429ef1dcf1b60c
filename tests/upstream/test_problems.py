"""The search for an error's code: every known place, and no other."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.upstream.test_translate_chat import unstreamed
from worker.jobs.states import Outcome
from worker.safety import classify
from worker.safety.codes import BLOCK, CODES, CodeKind, code_of, rank
from worker.safety.stream import Closed, StreamError, Terminal
from worker.safety.watch import AttemptWatch
from worker.upstream.embedded import find_objects
from worker.upstream.headers import rejected_from
from worker.upstream.payload import parse
from worker.upstream.problems import is_block, problem_of
from worker.upstream.translate import translate, translate_snapshot
from worker.upstream.translate_chat import ChatTranslator

NOW = datetime(2026, 11, 29, tzinfo=UTC)
BLOCKS = st.sampled_from(sorted(name for name, code in CODES.items() if code.kind is CodeKind.BLOCK))
PROSE = st.text(max_size=20).filter(lambda words: "{" not in words)
WORDS = st.sampled_from(["None", "400", "server_error", "invalid_request_error", "new_code", "forbidden", ""]) | PROSE
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
FILLING = st.dictionaries(
    st.sampled_from(["message", "title", "headers", "loc", "input", "obfuscation", "usage", "param", "type", "x"]),
    JSON,
    max_size=4,
)


def _quoted(inner: object) -> str:
    return f"litellm.BadRequestError: {{m}} OpenAIException - {json.dumps(inner)}. Received Model Group=a"


PLACES = {
    "code": lambda code: {"code": code},
    "type": lambda code: {"code": "400", "type": code},
    "param": lambda code: {"code": None, "param": code},
    "code in an object": lambda code: {"code": {"code": code}},
    "value of a code": lambda code: {"code": {"value": code}},
    "code in a list": lambda code: {"code": [code]},
    "reason": lambda code: {"reason": code},
    "incomplete": lambda code: {"incomplete_details": {"reason": code}},
    "inner": lambda code: {"innererror": {"code": code}},
    "upper case": lambda code: {"code": f" {code.upper()} "},
    "dashes": lambda code: {"code": code.replace("_", "-").title()},
    "spaces": lambda code: {"code": "400", "type": code.replace("_", " ")},
    "extensions": lambda code: {"extensions": {"code": code, "classification": "x"}},
}
WRAPPED = {
    "as it is": lambda error: error,
    "error": lambda error: {"error": error},
    "detail": lambda error: {"detail": {"error": error}},
    "errors": lambda error: {"errors": [{"message": "m"}, error]},
    "JSON in the message": lambda error: {"message": json.dumps({"error": error})},
    "quoted in the message": lambda error: {"message": _quoted({"error": error}), "code": "400"},
    "printed by Python": lambda error: {"message": f"Error code: 400 - { {'error': error}!r}"},
    "escaped": lambda error: {"message": "x " + json.dumps(json.dumps({"error": error}))[1:-1]},
    "a string of JSON": json.dumps,
    "raw": lambda error: {"code": 403, "metadata": {"raw": json.dumps({"error": error}), "flagged_input": "x"}},
    "response": lambda error: {"response": {"error": error}},
}
PLACE, WRAP = st.sampled_from(sorted(PLACES)), st.lists(st.sampled_from(sorted(WRAPPED)), max_size=3)


@st.composite
def planted(draw: st.DrawFn) -> tuple[str, Any]:
    """A block's code in one of its known places of an otherwise arbitrary error."""
    code = draw(BLOCKS)
    error: Any = draw(FILLING) | PLACES[draw(PLACE)](code)
    for name in draw(WRAP):
        error = WRAPPED[name](error)
        if type(error) is dict:
            error = draw(FILLING.map(lambda f: {k: v for k, v in f.items() if k != "type"})) | error
    return code, error


def _blocked(body: object, *, chat: bool = False) -> list[bool]:
    """Whether an error blocks, on each way that it can come."""
    raw = json.dumps(body).encode()
    http = rejected_from(400, {}, raw, NOW, on="create")
    framed = rejected_from(403, {}, b"event: error\ndata: " + raw + b"\n\n", NOW, on="create")
    frame = {"type": "error", "sequence_number": 1, "error": body}
    ends = {"type": "response.failed", "sequence_number": 1, "response": {"id": "r", "status": "failed", "error": body}}
    rides = {"type": "response.in_progress", "sequence_number": 1, "response": {"id": "r", "error": body}}
    failures = [classify.rejected(http), classify.rejected(framed)]
    for events in (translate(frame), translate(ends), translate(rides), translate_snapshot(ends["response"])):
        failures += [classify.fault(e) for e in events if isinstance(e, StreamError)]
        failures += [f for e in events if isinstance(e, Terminal) and (f := classify.terminal(e)) is not None]
    chunks = [ChatTranslator().feed({"error": body}), unstreamed({"error": body})]
    failures += [classify.fault(e) for events in chunks for e in events if isinstance(e, StreamError)]
    assert len(failures) >= 7 or not body
    return [failure.outcome is Outcome.BLOCKED for failure in failures]


@given(planted())
@settings(max_examples=300, deadline=None)
def test_a_known_block_code_in_a_known_place_always_blocks(case: tuple[str, Any]) -> None:
    code, error = case
    assert rank(code_of(problem_of(error))) == BLOCK, code
    assert all(_blocked(error))


WIDE = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])


@given(planted(), st.lists(JSON | st.just({"code": "server_error"}), max_size=2), st.integers(0, 2), WIDE)
@settings(max_examples=100, deadline=None)
def test_no_other_value_of_the_same_key_and_no_encoding_hides_a_block(
    case: tuple[str, Any], others: list[Any], place: int, encoding: str
) -> None:
    values = [*others[:place], case[1], *others[place:]]
    error = "{" + ",".join(f'"error":{json.dumps(value)}' for value in values) + "}"
    http = rejected_from(400, {}, error.encode(encoding, "surrogatepass"), NOW, on="create")
    assert classify.rejected(http).outcome is Outcome.BLOCKED
    response = '{"type":"response.failed","response":{"id":"r","status":"failed",' + error[1:] + "}"
    (event,) = translate(parse(response.encode()))
    assert isinstance(event, Terminal)
    assert is_block(event.problem)


@given(st.sampled_from(["message", "msg", "title", "error", "detail", "x"]), BLOCKS, PROSE, PROSE, FILLING)
@settings(max_examples=300, deadline=None)
def test_free_text_that_mentions_a_code_never_blocks(
    key: str, code: str, before: str, after: str, filling: dict[str, Any]
) -> None:
    text = f"{before} the code {code} {after}"
    assert not is_block(problem_of({**filling, key: text}))
    assert not is_block(problem_of({"error": {**filling, key: text}}))
    assert not is_block(problem_of(text))
    assert not is_block(problem_of({"message": code})), "a message is text, even when it is one word"
    quoted = json.dumps({**filling, "code": code, "type": code})
    assert not is_block(problem_of({"error": {key: f"{before} {quoted} {after}."}})), "JSON, but nobody's error"
    if "_" in code:
        sentence = code.replace("_", " ").capitalize()
        assert not is_block(problem_of({"detail": sentence, "error": {"reason": sentence}})), "two words are prose"


@given(BLOCKS, JSON)
@settings(max_examples=100, deadline=None)
def test_what_the_app_or_the_model_wrote_is_no_code(code: str, anything: object) -> None:
    error = {"error": {"code": code}}
    quoted = {
        "metadata": {**error, "code": code, "x": anything},
        "output": [error],
        "input": error,
        "instructions": code,
    }
    failed = {"type": "response.failed", "response": {"id": "r", "status": "failed", "error": None, **quoted}}
    (event,) = translate(failed)
    assert isinstance(event, Terminal)
    assert not is_block(event.problem)
    assert not is_block(problem_of({"detail": [{"loc": ["body"], "msg": "m", "type": "missing", "input": error}]}))
    assert not is_block(problem_of({"error": {"code": 403, "metadata": {"flagged_input": json.dumps(error)}}}))


@given(JSON | planted().map(lambda case: case[1]))
@settings(max_examples=200, deadline=None)
def test_no_error_of_any_shape_raises(body: Any) -> None:
    _blocked(body)
    for frame in (body, {"object": "error", "detail": body}, {"type": "error", "code": body, "response": body}):
        translate(frame)
        translate_snapshot(frame)
        ChatTranslator().feed(frame)


@given(st.text(alphabet="{}[]\"'\\:,aux0N \n", max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_text_breaks_the_reading_of_what_it_quotes(text: str) -> None:
    assert all(type(found) is dict for found in find_objects(text))


@pytest.mark.parametrize(
    "text",
    ['{"' * 40_000, '{"a":' * 20_000, "{'" * 40_000, "{'a':" * 20_000, '{"a":"' + "\\" * 90_000, '{\\"' * 30_000],
)
def test_hostile_text_costs_little(text: str) -> None:
    began = time.process_time()
    problem_of({"error": {"message": text, "detail": text, "errors": [text] * 50}})
    assert time.process_time() - began < 2.0


def test_a_deep_or_wide_error_costs_little() -> None:
    deep: Any = {"code": "cyber_policy"}
    for _ in range(300):
        deep = {"error": deep}
    wide = {"errors": [{"errors": [{"error": {"code": "x"}}] * 60}] * 60}
    began = time.process_time()
    problem_of(deep)
    problem_of(wide)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": {"code": "404", "message": "m"}}, "404"),
        ({"code": "rate_limit_exceeded", "error": {"code": "insufficient_quota"}}, "rate_limit_exceeded"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, None),
        ({"error": {"code": "new_code", "message": '{"code":"server_is_overloaded"}'}}, "server_is_overloaded"),
        ({"error": {"innererror": {"content_filter_results": [{"hate": {"filtered": True}}]}}}, "content_filter"),
        ({"error": {"content_filters": [{"blocked": True, "source_type": "prompt"}]}}, "content_filter"),
        ({"error": {"innererror": {"content_filter_result": {"hate": {"filtered": False}}}}}, None),
    ],
)  # fmt: skip
def test_of_several_codes_the_one_that_tells_most_wins_and_among_equals_the_outermost(
    body: object, code: str | None
) -> None:
    assert problem_of(body).code == code


@given(planted(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_watch_that_saw_it_anywhere_ends_blocked(case: tuple[str, Any], first: bool) -> None:
    """Whatever stands beside it: the attempt ends as a block, and a block has no next attempt."""
    watch = AttemptWatch("gpt-5.6-sol", checked=True, now=0.0)
    vague = {"type": "error", "sequence_number": 2, "error": {"code": "server_error"}}
    explicit = {"type": "error", "sequence_number": 3, "error": case[1]}
    for frame in (explicit, vague) if first else (vague, explicit):
        for event in translate(frame):
            watch.feed(event, 1.0)
    watch.feed(Closed("clean"), 2.0)
    verdict = watch.verdict
    assert verdict is not None
    assert verdict.outcome is Outcome.BLOCKED
    assert verdict.failure is not None
    assert not verdict.failure.retryable
