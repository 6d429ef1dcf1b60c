"""Defines scenarios of gateways and compatible servers: the provider's errors as they forward them.

Pure data, part of scenarios.py's table.
"""

from __future__ import annotations

from .scenario import Expected, Scenario

GATEWAYS: tuple[Scenario, ...] = (
    Scenario(
        "gateway_block",
        "HTTP 400 of a LiteLLM proxy: its message quotes the body of a block, its code repeats the status.",
        {"code": "cyber_policy", "carrier": "http", "wrap": "litellm"},
        ("hold", "code", "carrier", "times"),
        Expected("blocked", "blocked", "cyber", "http_400"),
        spares_fast_tier=True,
    ),
    Scenario(
        "sse_block",
        "HTTP 403 whose error body is framed as a server-sent event.",
        {"code": "misalignment_policy_violation", "carrier": "http", "wrap": "sse"},
        ("hold", "code", "carrier", "times"),
        Expected("blocked", "blocked", "misalignment", "http_403"),
        spares_fast_tier=True,
    ),
    Scenario(
        "gateway_not_found",
        "HTTP 404 of a LiteLLM proxy in prose: its code repeats the status.",
        {"code": "model_not_found", "carrier": "http", "wrap": "prose"},
        ("times", "only"),
        Expected("failed", "access_denied", note="or the fallback chain, with disclosure"),
    ),
    Scenario(
        "gateway_key_refused",
        "HTTP 401 of a LiteLLM proxy that quotes the server behind it: the key of one model's deployment is wrong.",
        {"code": "invalid_api_key", "carrier": "http", "wrap": "litellm"},
        ("times", "only"),
        Expected("expired", "auth_failed", note="held by itself until the queue deadline; other models go on"),
    ),
    Scenario(
        "html_403",
        "HTTP 403 with HTML from the edge, no request id.",
        {"carrier": "html", "times": 1},
        ("times",),
        Expected("completed", "access_denied", note="the next attempt completes"),
    ),
    Scenario(
        "error_object",
        "HTTP 200 with an error object and the end mark in place of the stream, as vLLM sends it.",
        {"code": "simulated_fault", "carrier": "http", "wrap": "object"},
        ("times",),
        Expected("failed", "bad_request"),
    ),
)
