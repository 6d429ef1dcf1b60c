"""What a request's price depends on: a bound of its tokens by size, tier, window, effort and its own output limit."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from worker.jobs.request_shape import MAX_CONTEXT_TOKENS, MAX_IMAGE_TOKENS, shape_of, with_output_limit


@given(st.text(max_size=400))
def test_text_has_at_most_one_token_per_byte(text):
    shape = shape_of({"input": text, "instructions": text})
    size = 2 * len(text.encode("utf-8", "surrogatepass"))
    assert size <= shape.bytes_input <= size + 100
    assert shape.likely_input <= shape.bytes_input


def test_everything_that_is_sent_counts():
    small = shape_of({"input": [{"role": "user", "content": "hi"}]})
    tools = [{"type": "function", "name": "f", "parameters": {"x": "y" * 1000}}]
    large = shape_of(
        {"input": [{"role": "user", "content": "hi"}], "instructions": "a" * 500, "params": {"tools": tools}}
    )
    assert large.bytes_input > small.bytes_input + 1500
    assert not large.unmeasured


@pytest.mark.parametrize("url", ["https://x.example/a.png", "data:image/png;base64," + "A" * 50_000])
def test_an_image_counts_as_one_whatever_its_size(url):
    part = {"type": "input_image", "image_url": url}
    shape = shape_of({"input": [{"role": "user", "content": [part, {"type": "input_text", "text": "what?"}]}]})
    assert MAX_IMAGE_TOKENS < shape.bytes_input < MAX_IMAGE_TOKENS + 500


@pytest.mark.parametrize(
    "request_body",
    [
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": "hi", "params": {"tools": [{"type": "web_search"}]}},
        {"input": "hi", "params": {"previous_response_id": "resp_1"}},
    ],
)
def test_what_only_the_provider_can_measure_counts_as_the_whole_context(request_body):
    shape = shape_of(request_body)
    assert shape.highest_input(None) == MAX_CONTEXT_TOKENS
    assert shape.highest_input(400_000) == 400_000


def test_tier_window_effort_and_limit_are_read():
    params = {
        "service_tier": "fast",
        "background_options": {"completion_window": "8h"},
        "reasoning": {"effort": "minimal"},
        "max_output_tokens": 300,
        "n": 3,
        "prompt_cache_options": {"ttl": "12h"},
    }
    shape = shape_of({"input": "x", "params": params})
    assert (shape.service_tier, shape.window, shape.effort) == ("fast", "8h", "minimal")
    assert (shape.output_limit, shape.choices, shape.kept_12h) == (300, 3, True)
    soonest = shape_of({"input": "x", "params": {"background_options": {"completion_window": "soonest"}}})
    assert soonest.window is None


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
_NAMES = ("service_tier", "background_options", "reasoning", "max_output_tokens", "n", "tools", "text")


@given(st.dictionaries(st.sampled_from(_NAMES), _VALUES))
def test_params_of_any_shape_are_read_and_no_text_of_a_caller_is_kept(params):
    shape = shape_of({"input": "x", "params": params})
    for name in (shape.service_tier, shape.window, shape.effort):
        assert name is None or (name.isascii() and len(name) <= 32 and " " not in name)
    assert shape.choices >= 1
    assert shape.output_limit is None or shape.output_limit > 0


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({}, {"max_output_tokens": 50}),
        ({"max_output_tokens": 20}, {"max_output_tokens": 20}),
        ({"max_output_tokens": 500}, {"max_output_tokens": 50}),
        ({"max_output_tokens": "500"}, {"max_output_tokens": 50}),
        ({"max_output_tokens": None, "temperature": 1}, {"max_output_tokens": 50, "temperature": 1}),
        ({"max_tokens": 500}, {"max_tokens": 50, "max_output_tokens": 50}),
        ({"max_completion_tokens": 10}, {"max_completion_tokens": 10, "max_output_tokens": 10}),
    ],
)
def test_a_limit_is_lowered_and_never_raised(params, sent):
    assert with_output_limit(params, 50) == sent
