"""Which responses say that the provider's safety filter did not run."""

from __future__ import annotations

import pytest

from worker.upstream.response_details import is_unfiltered

DOWN = {"error": {"code": "content_filter_error", "message": "The contents are not filtered"}}
RAN = {"hate": {"filtered": False, "severity": "safe"}}


@pytest.mark.parametrize(
    ("holder", "unfiltered"),
    [
        ({}, False),
        ({"content_filter_results": RAN}, False),
        ({"content_filter_results": {}}, False),
        ({"content_filter_results": {"error": None}}, False),
        ({"content_filter_results": "error"}, False),
        ({"content_filter_results": DOWN}, True),
        ({"content_filter_results": {}, "content_filter_result": DOWN}, True),
        ({"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": DOWN}]}, True),
        ({"prompt_filter_results": [{"content_filter_results": RAN}, 7]}, False),
        ({"content_filters": [{"blocked": False, "content_filter_results": DOWN}]}, True),
        ({"content_filters": {"content_filter_results": DOWN}}, False),
        ({"moderation": {"output": {"type": "error", "code": "x"}}}, True),
        ({"moderation": {"input": [{"flagged": True}], "output": {"flagged": False}}}, False),
    ],
)
def test_an_error_in_place_of_the_results(holder, unfiltered):
    assert is_unfiltered(holder) is unfiltered
