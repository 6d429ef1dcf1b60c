"""Whatever JSON stands in whatever place of whatever event, however cut: an answer comes out, or why there is none.

From bytes to what an app would read: split, translated, watched, delivered, written as JSON. Frames are changed in any
place, repeated, dropped and put in any order.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx2
from hypothesis import given, settings, strategies as st

from worker.jobs.states import DELIVERED, Outcome
from worker.jobs.view import dumps
from worker.safety import classify, event_mapping
from worker.safety.finish import Finish, finish_word, meaning
from worker.safety.signals import AttemptVerdict
from worker.safety.stream import Closed, Delta
from worker.safety.watch import AttemptWatch
from worker.upstream.answer import UpstreamAnswer
from worker.upstream.body import BODY, AnswerBody
from worker.upstream.headers import rejected_from

NOW = datetime(2026, 7, 10, tzinfo=UTC)
ODD = (None, True, 0, 7, -1, 10**30, 1.5, float("nan"), float("inf"), "", "x", "stop", "SAFETY", "\ud83d")
SHAPES = ([], {}, [None], [[7]], {"type": "message"}, {"code": "cyber_policy"}, {"text": None}, {"index": "0"})
VALUES = st.sampled_from([*ODD, *SHAPES, "response.completed", "completed"])
JSON = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
ITEM = {"id": "m", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]}
SNAPSHOT = {"id": "resp_1", "status": "in_progress", "model": "m", "output": [], "usage": None, "error": None}
USAGE = {"input_tokens": 1, "output_tokens": 2}
RESPONSES: list[Any] = [
    {"type": "response.created", "sequence_number": 0, "response": SNAPSHOT},
    {"type": "response.output_text.delta", "sequence_number": 1, "output_index": 0, "delta": "Hello."},
    {"type": "response.output_text.done", "sequence_number": 2, "output_index": 0, "text": "Hello."},
    {"type": "response.output_item.done", "sequence_number": 3, "output_index": 0, "item": ITEM},
    {"type": "error", "sequence_number": 4, "error": {"code": "server_error", "type": "x", "param": None}},
    {
        "type": "response.completed",
        "sequence_number": 5,
        "response": SNAPSHOT | {"status": "completed", "output": [ITEM], "usage": USAGE, "incomplete_details": None},
    },
    {"type": "response.failed", "sequence_number": 6, "response": SNAPSHOT | {"status": "failed", "error": {}}},
]  # fmt: skip
TOOL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
CHAT: list[Any] = [
    {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}],
    },
    {"id": "c", "choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "lo."}], "refusal": None}}]},
    {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [TOOL, TOOL]}}]},
    {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    "[DONE]",
]


@st.composite
def changed(draw: st.DrawFn, frames: Sequence[Any]) -> list[Any]:
    """Some of the frames, in some order, some of them twice, with something else in a few places."""
    chosen = draw(st.lists(st.sampled_from(frames), max_size=8) | st.permutations(frames) | st.just(list(frames)))
    out = [copy.deepcopy(frame) for frame in chosen]
    for _ in range(draw(st.integers(0, 3)) if out else 0):
        number = draw(st.integers(0, len(out) - 1))
        out[number] = put(draw, out[number])
    return out


def put(draw: st.DrawFn, value: Any) -> Any:
    """The value with another one somewhere in it, or in its place."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not keys or draw(st.integers(0, 9)) == 0:
        return copy.deepcopy(draw(JSON))
    key = draw(st.sampled_from(keys))
    value[key] = put(draw, value[key])
    return value


class Memory(AnswerBody):
    """A body that is there already."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def read_available(self) -> bytes:
        rest, self._pieces = b"".join(self._pieces), []
        return rest


def judged(
    pieces: list[bytes], *, chat: bool, label: str = "text/event-stream"
) -> tuple[AttemptVerdict, dict[str, Any]]:
    """What becomes of an attempt that is answered with these bytes, and what is delivered of it."""

    async def send() -> httpx2.Response:
        body = Memory([piece for piece in pieces if piece])
        return httpx2.Response(200, headers={"content-type": label}, stream=body, extensions={BODY: body})

    async def play() -> tuple[AttemptWatch, str]:
        answer = UpstreamAnswer(send, on="create", chat=chat, now=lambda: NOW)
        watch, text = AttemptWatch("m", checked=True, now=0.0), ""
        while batch := await answer.read():
            for event in batch:
                if (
                    type(event) is Delta
                    and event.kind == "text"
                    and watch.delta(event.sequence, 1.0) in (None, "signals")
                ):
                    text += event.text
                    watch.take_signals()
                elif type(event) is not Delta or event.kind != "text":
                    watch.feed(event, 1.0)
        watch.feed(Closed("clean"), 2.0)
        return watch, text

    watch, text = asyncio.run(play())
    assert watch.verdict is not None
    return watch.verdict, event_mapping.answer_of(watch.verdict, text)


def check(verdict: AttemptVerdict, answer: dict[str, Any]) -> None:
    """What holds whatever came."""
    json.loads(dumps(answer), parse_constant=_no_json)
    assert (verdict.outcome in DELIVERED) == (verdict.failure is None)
    if verdict.outcome not in DELIVERED:
        assert answer == {"output_text": None, "output": [], "refusal": None}
    for item in answer["output"]:
        if item.get("type") == "message":
            assert all(isinstance(part, dict) for part in item["content"])


def _no_json(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def cut(draw: st.DrawFn, body: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(body)), max_size=6)))
    return [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]


def lines(frames: list[Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % (frame if frame == "[DONE]" else json.dumps(frame)).encode() for frame in frames)


@settings(deadline=None)
@given(changed(RESPONSES), st.data())
def test_a_response_ends_well_only_if_the_provider_says_so(frames: list[Any], data: st.DataObject) -> None:
    verdict, answer = judged(data.draw(st.composite(cut)(lines(frames))), chat=False)
    check(verdict, answer)
    kinds = {frame.get("type") for frame in frames if isinstance(frame, dict) and isinstance(frame.get("type"), str)}
    kinds |= {"response.completed" for frame in frames if _says_completed(frame)}
    if verdict.outcome in (Outcome.COMPLETED, Outcome.REFUSED):
        assert kinds & {"response.completed", "response.done"}
    if verdict.outcome in DELIVERED:
        assert kinds & {"response.completed", "response.done", "response.incomplete"}


def _says_completed(frame: Any) -> bool:
    """Return whether an event without a name holds a response that says it is completed: its status counts."""
    response = frame.get("response") if isinstance(frame, dict) and not isinstance(frame.get("type"), str) else None
    return isinstance(response, dict) and response.get("status") == "completed"


@settings(deadline=None)
@given(changed(CHAT), st.data())
def test_a_chat_ends_well_only_if_it_has_a_reason_to_stop(frames: list[Any], data: st.DataObject) -> None:
    verdict, answer = judged(data.draw(st.composite(cut)(lines(frames))), chat=True)
    check(verdict, answer)
    if verdict.outcome in (Outcome.COMPLETED, Outcome.REFUSED):
        assert {Finish.END, Finish.REFUSAL} & {meaning(word) for word in _reasons(frames)}


def _reasons(frames: list[Any]) -> list[str]:
    found = []
    for frame in frames:
        choices = frame.get("choices") if isinstance(frame, dict) else None
        for choice in [choices] if isinstance(choices, dict) else choices if isinstance(choices, list) else []:
            word = finish_word(choice.get("finish_reason")) if isinstance(choice, dict) else None
            found += [word] if word else []
    return found


@settings(deadline=None)
@given(JSON | changed(RESPONSES) | changed(CHAT) | st.sampled_from(RESPONSES + CHAT), st.booleans(), st.data())
def test_a_body_of_any_json_under_any_label(value: Any, chat: bool, data: st.DataObject) -> None:
    label = data.draw(
        st.sampled_from(["application/json", "text/event-stream", "", "text/html", "application/x-ndjson"])
    )
    check(*judged(data.draw(st.composite(cut)(json.dumps(value).encode())), chat=chat, label=label))


@settings(deadline=None)
@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([b"data: ", b"\n\n", b"{", b"[DONE]", b"\xef\xbb", b"event: x\n"])
    ),
    st.booleans(),
)
def test_any_bytes(pieces: list[bytes], chat: bool) -> None:
    check(*judged(pieces, chat=chat, label=""))


@settings(deadline=None)
@given(
    st.integers(300, 599),
    JSON | st.dictionaries(st.sampled_from(["error", "detail", "message", "code", "type", "param"]), JSON),
    st.sampled_from(["create", "resume", "poll"]),
)
def test_any_error_body_is_a_failure(status: int, body: Any, on: Any) -> None:
    failure = classify.rejected(rejected_from(status, {}, json.dumps(body).encode(), NOW, on=on))
    assert failure.outcome not in DELIVERED
    assert (failure.outcome is Outcome.BLOCKED) == (failure.block is not None)
