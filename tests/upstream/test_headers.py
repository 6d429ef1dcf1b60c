from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from hypothesis import given, strategies as st

from worker.safety.stream import ProviderProblem
from worker.upstream.headers import opened_from, rejected_from

NOW = datetime(2026, 7, 10, 12, 0, 0, tzinfo=UTC)
HEADERS = httpx2.Headers(
    {
        "X-Request-Id": "req_1",
        "OpenAI-Organization": "org-1",
        "openai-project": "proj_1",
        "openai-processing-ms": "9922",
        "OpenAI-Model": "gpt-5.6-luna",
        "x-ratelimit-remaining-requests": "0",
        "x-codex-safety-buffering-enabled": "true",
        "cf-ray": "9sim-AMS",
        "set-cookie": "a=b",
    }
)


def test_an_opening_keeps_what_an_audit_asks_for() -> None:
    opened = opened_from(200, HEADERS, resumed=True)
    assert (opened.request_id, opened.organization, opened.project) == ("req_1", "org-1", "proj_1")
    assert (opened.processing_ms, opened.served_header, opened.resumed) == (9922, "gpt-5.6-luna", True)
    assert opened.rate_limits == {"x-ratelimit-remaining-requests": "0"}
    assert opened.context == {"x-codex-safety-buffering-enabled": "true", "cf-ray": "9sim-AMS"}


@pytest.mark.parametrize("value", ["", "x", "-1", "nan", "1e99", "9" * 40])
def test_a_processing_time_that_is_none_is_left_out(value: str) -> None:
    assert opened_from(200, httpx2.Headers({"openai-processing-ms": value}), resumed=False).processing_ms is None


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            {"error": {"code": "c", "type": "t", "param": "p", "message": "m"}},
            ProviderProblem("c", "t", "p", message="m"),
        ),
        ({"error": {"code": None, "type": "t"}}, ProviderProblem(None, "t")),
        ({"error": {"code": 403}}, ProviderProblem("403", None)),
        ({"error": "try again in 2s"}, ProviderProblem(None, None, retry_after=2.0, message="try again in 2s")),
        ({"detail": "no"}, ProviderProblem(None, None, message="no")),
        ({"detail": {"code": "c"}}, ProviderProblem("c", None)),
        ({"detail": [{"msg": "x"}]}, ProviderProblem(None, None, message="x")),
        ({"detail": [{"loc": ["body", "n"], "msg": "x"}]}, ProviderProblem(None, None, param="n", message="x")),
        ({"detail": [{"loc": ["body", 0], "msg": "x"}]}, ProviderProblem(None, None, param="body", message="x")),
        ({"detail": [7, {}]}, ProviderProblem(None, None)),
        ({"detail": []}, ProviderProblem(None, None)),
        ({"code": "c", "message": "m"}, ProviderProblem("c", None, message="m")),
        ([{"error": {"code": "c"}}], ProviderProblem("c", None)),
        ({}, ProviderProblem(None, None)),
        ([], ProviderProblem(None, None)),
        (7, ProviderProblem(None, None)),
        (
            {"error": {"param": "access_programs.cyber"}},
            ProviderProblem(None, None, "access_programs.cyber", mentions_access=True),
        ),
    ],
)
def test_bodies_of_errors(body: object, problem: ProviderProblem) -> None:
    assert rejected_from(400, {}, json.dumps(body).encode(), NOW, on="create").problem == problem


@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"\xff\xfe", b'{"error": {"co', b"[" * 100_000])
def test_a_body_that_is_not_json_has_no_problem(body: bytes) -> None:
    rejected = rejected_from(403, HEADERS, body, NOW, on="resume")
    assert rejected.problem is None
    assert (rejected.http_status, rejected.request_id, rejected.on) == (403, "req_1", "resume")


@given(
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date", "openai-processing-ms"]), st.text()),
    st.binary(),
)
def test_no_header_and_no_body_raises(headers: dict[str, Any], body: bytes) -> None:
    rejected_from(500, headers, body, NOW, on="create")
    opened_from(200, headers, resumed=False)
