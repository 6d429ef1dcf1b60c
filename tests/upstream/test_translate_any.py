"""Whatever JSON a provider sends, the translation gives events and never an exception."""

from __future__ import annotations

from hypothesis import given, strategies as st

from worker.safety.stream import Delta, StreamEvent
from worker.upstream.translate import _translate, translate, translate_snapshot

KEYS = st.sampled_from(
    [
        "type",
        "sequence_number",
        "response",
        "error",
        "delta",
        "item",
        "part",
        "metadata",
        "headers",
        "safety_buffering",
        "status",
        "id",
        "model",
        "usage",
        "output",
        "incomplete_details",
        "code",
        "message",
        "param",
        "reason",
        "use_cases",
        "reasons",
        "retry_model",
        "openai-model",
        "input_tokens",
        "output_tokens",
        "input_tokens_details",
        "cached_tokens",
        "openai_verification_recommendation",
        "output_index",
    ]
)
TYPES = st.sampled_from(
    [
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.metadata",
        "response.safety_buffering",
        "error",
        "response.output_text.delta",
        "response.refusal.delta",
        "response.audio.delta",
        "response.output_item.done",
        "response.content_part.done",
        "response.completed",
        "response.failed",
        "response.incomplete",
        "response.cancelled",
        "keepalive",
        "safety_buffering",
        "completed",
        "failed",
        "queued",
        "trusted_access_for_cyber",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | TYPES
JSON = st.deferred(
    lambda: SCALARS | st.lists(JSON, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), JSON, max_size=6)
)
EVENTS = st.fixed_dictionaries(
    {"type": TYPES}, optional={"response": JSON, "error": JSON, "metadata": JSON, "delta": JSON}
)


@given(JSON | EVENTS)
def test_no_json_value_raises_and_each_proves_life(data: object) -> None:
    for events in (translate(data), translate_snapshot(data)):
        assert events
        for event in events:
            assert isinstance(event, StreamEvent)
            sequence = getattr(event, "sequence", None)
            assert sequence is None or (type(sequence) is int and sequence >= 0)
            if isinstance(event, Delta):
                assert event.text


@given(JSON | EVENTS)
def test_the_fast_path_says_what_the_whole_translation_says(data: object) -> None:
    assert repr(translate(data)) == repr(_translate(data))
