"""Defines scenarios of the shapes of signals and blocks that were seen since June (wire-news sections 1.1 and 1.2).

Pure data, like scenarios.py.
"""

from __future__ import annotations

from typing import Any, Final

from .scenario import Expected, Scenario

_OPTIONS: Final = ("hold", "signal", "shape", "use_case", "reason", "retry_model", "tokens", "rate")
_FAIL: Final = ("code", "carrier", "form", "param", "quote", "times", "partial", "hold")


def _signal(name: str, description: str, shape: str, signal: str, check: str | None = "signalled") -> Scenario:
    defaults = {"signal": signal, "shape": shape, "hold": 3.0, "tokens": 3}
    return Scenario(name, description, defaults, _OPTIONS, Expected(check=check), spares_fast_tier=True)


def _block(name: str, description: str, category: str, carrier: str, defaults: dict[str, Any]) -> Scenario:
    expected = Expected("blocked", "blocked", category, carrier)
    return Scenario(name, description, defaults, _FAIL, expected, spares_fast_tier=True)


SIGNAL_SCENARIOS: Final[tuple[Scenario, ...]] = (
    _signal("check_reasons_only", "A check announced by an object with `reasons` alone.", "reasons", "top"),
    _signal("check_retry_model_only", "A check announced by an object with `retry_model` alone.", "retry_model", "top"),
    _signal("check_no_reasons", "A check announced with use cases and an empty list of reasons.", "use_cases", "top"),
    _signal("check_one_reason", "A check announced by an object with one `reason` as a string.", "reason", "top"),
    _signal("check_enabled", "A check announced by `enabled: true` inside the response.", "enabled", "snapshot"),
    _signal("check_typed", "A check announced by the event response.safety_buffering.", "full", "typed"),
    _signal("check_duplicate_keys", "A check announced by an object whose keys appear twice.", "duplicate", "metadata"),
    _signal("check_proto", "A check announced by an object with a `__proto__`.", "proto", "top"),
    _signal("buffering_disabled", "`enabled: false` inside the response: no check.", "disabled", "snapshot", None),
    _signal("buffering_string", "The string `buffered` inside the response: no check.", "string", "snapshot", None),
)

BLOCK_SCENARIOS: Final[tuple[Scenario, ...]] = (
    _block(
        "end_user_limited",
        "A block that names the safety identifier: the provider limits the end user, not the request.",
        *("cyber", "error_event"),
        {"carrier": "error_event", "code": "cyber_policy_violation", "param": "safety_identifier"},
    ),
    _block(
        "websocket_error",
        "A block as a WebSocket writes it: an error event with status, stream_id and error.misalignment.",
        *("misalignment", "error_event"),
        {"carrier": "error_event", "code": "misalignment_policy_violation", "form": "websocket", "partial": 2},
    ),
    _block(
        "misalignment_error",
        "HTTP 403 whose error has a misalignment object.",
        *("misalignment", "http_403"),
        {"carrier": "http", "code": "misalignment_policy_violation", "form": "misalignment"},
    ),
    _block(
        "moderation_block",
        "response.failed without an error; its moderation results say that the input was blocked.",
        *("content_filter", "response_failed"),
        {"carrier": "response_failed", "code": "content_filter", "form": "moderation"},
    ),
    Scenario(
        "moderation_score",
        "An answer whose input is flagged by a moderation that only scores: no block.",
        {"form": "moderation", "tokens": 3},
        ("tokens",),
    ),
    Scenario(
        "worded_block",
        "response.failed without a code, in the words of a block: no verdict, and not sent again.",
        {"carrier": "response_failed", "code": "cyber_policy", "form": "worded"},
        _FAIL,
        Expected("failed", "server_error", note="may_be_withheld"),
        spares_fast_tier=True,
    ),
    Scenario(
        "check_then_status",
        "An announced check, then an error with a status in the place of a code: not sent again.",
        {
            "signal": "top",
            "shape": "full",
            "hold": 3.0,
            "carrier": "flat_error",
            "code": "rate_limit_exceeded",
            "form": "status",
        },
        (*_OPTIONS, *_FAIL),
        Expected("failed", "rate_limited", check="signalled", note="failed_after_check"),
        spares_fast_tier=True,
    ),
    Scenario(
        "filter_down",
        "An answer although the content filter was not available, with its error in place of its results.",
        {"unfiltered": True},
        ("tokens", "rate"),
        Expected(note="unfiltered: true"),
    ),
    Scenario(
        "input_removed",
        "An answer before which the provider removed reasoning items from the input.",
        {"removed": 2, "tokens": 3},
        ("removed", "tokens"),
        Expected(note="input_changes says so; chat has no such field"),
    ),
    Scenario(
        "cache_written",
        "An answer whose usage says what was written to the prompt cache.",
        {"cache_write": 64, "tokens": 3},
        ("cache_write", "tokens"),
    ),
)
