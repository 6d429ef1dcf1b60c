"""Every scenario's stream is well-formed, whatever its options; no socket needed."""

import json
import math
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import pytest
from hypothesis import given, strategies as st

from worker.simulator import SCENARIOS
from worker.simulator.chat_script import chat_script
from worker.simulator.directive import Directive, parse
from worker.simulator.plan import Plan, resolve
from worker.simulator.prose import words
from worker.simulator.request_body import ParsedRequest, read
from worker.simulator.schema_sample import sample
from worker.simulator.script import responses_script
from worker.simulator.wire import Ids, Step

SOL = "gpt-5.6-sol"
IDS = Ids("resp_1", "msg_1", "call_1", 1_790_000_000)
TERMINAL = {"response.completed", "response.failed", "response.incomplete", "error"}


def ask(**more: Any) -> ParsedRequest:
    """Return a request."""
    return read(json.dumps({"model": SOL, "input": "hello there", **more}).encode(), chat=False)


def played(plan: Plan, **more: Any) -> list[Step]:
    """Return the steps up to an endless wait."""
    steps: Iterator[Step] = responses_script(ask(**more), plan, IDS, "proj_sim")
    return list(takewhile(lambda step: step.wait != math.inf, steps))


def data(steps: list[Step]) -> list[dict[str, Any]]:
    """Return the JSON of all frames."""
    lines = [line for step in steps for line in step.frame.decode().splitlines()]
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_every_scenario_is_well_formed(name: str, background: bool) -> None:
    plan = resolve(Directive(name), SOL)
    steps = played(plan, background=background)
    numbers = [step.seq for step in steps if step.seq >= 0]
    assert numbers == sorted(set(numbers))
    found = data(steps)
    assert [event["sequence_number"] for event in found] == numbers
    assert found[0]["type"] == "response.created"
    ends = [step for step in steps if step.terminal]
    assert len(ends) == (0 if plan.stuck else 1)
    if ends:
        assert data(ends)[0]["type"] in TERMINAL
    snapshots = [step.snapshot for step in steps if step.snapshot is not None]
    usage = snapshots[-1]["usage"]
    assert usage is None or usage["output_tokens"] == sum(step.tokens for step in steps)


def test_waits_add_up_to_the_hold() -> None:
    for text in ("silent_delay hold=60", "keepalives hold=60 keepalive=7", "check_repeats hold=60 repeats=4"):
        steps = played(resolve(parse(f"{text} latency=0 tokens=1"), SOL))
        assert sum(step.wait for step in steps) == pytest.approx(60)
        assert all(step.wait >= 0 for step in steps)


def test_the_transcript_of_a_cleared_check() -> None:
    found = data(played(resolve(parse("check_then_clear tokens=2"), SOL)))
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created",
        "metadata",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
        "rate_limits.updated",
    ]
    assert found[1] == {
        "type": "response.metadata",
        "sequence_number": 1,
        "response_id": "resp_1",
        "metadata": {
            "type": "safety_buffering",
            "use_cases": ["cyber"],
            "reasons": ["user_risk"],
            "retry_model": "gpt-5.6-luna",
        },
    }


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_every_scenario_makes_a_chat_too(name: str) -> None:
    body = json.dumps({"model": SOL, "messages": [{"role": "user", "content": "x"}]}).encode()
    steps = chat_script(read(body, chat=True), resolve(Directive(name), SOL), IDS, "proj_sim")
    for step in takewhile(lambda step: step.wait != math.inf, steps):
        text = step.frame.decode().strip().removeprefix("data: ")
        assert text in {"", "[DONE]"} or isinstance(json.loads(text), dict)


@given(st.integers(0, 10_000), st.integers(0, 3000))
def test_words_are_as_many_as_asked(length: int, count: int) -> None:
    assert len(words(length, count)) == count
    assert words(length, count) == words(length, count)


@given(st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_schema_gets_a_json_value(schema: Any) -> None:
    json.dumps(sample(schema))


def test_a_schema_that_asks_for_endless_values_gets_some():
    nested = {"type": "string"}
    for _ in range(15):
        nested = {"type": "object", "properties": {"a": nested, "b": nested}, "required": ["a", "a", "b"] * 9}
    endless = {"type": "array", "minItems": 10**12, "items": {"type": "array", "minItems": 10**9}}
    for schema in (nested, endless):
        assert len(json.dumps(sample(schema))) < 200_000
