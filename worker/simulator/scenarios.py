"""Lists all scenarios: what each does, its default options, and the result of a well-behaved client.

Pure data. It must not depend on how a scenario is played; names in `defaults` are fields of plan.Plan.
"""

from __future__ import annotations

from typing import Any

from .gateway_scenarios import GATEWAYS
from .resume_scenarios import RESUME_SCENARIOS
from .scenario import Expected, Scenario
from .serving_scenarios import SERVING_SCENARIOS
from .signal_scenarios import BLOCK_SCENARIOS, SIGNAL_SCENARIOS
from .tool_scenarios import TOOL_SCENARIOS
from .wire_shape_scenarios import WIRE_SHAPE_SCENARIOS

_CHECK = ("hold", "keepalive", "use_case", "reason", "retry_model", "signal", "repeats")
_FAIL = ("code", "carrier", "times")
_CUT = ("how", "after", "times", "tokens", "rate")


def _ok(check: str | None = None, note: str = "") -> Expected:
    return Expected(check=check, note=note)


def _blocked(category: str, carrier: str, check: str | None = None, note: str = "") -> Expected:
    return Expected("blocked", "blocked", category, carrier, check, note)


def _failed(outcome: str, note: str = "") -> Expected:
    return Expected("failed", outcome, note=note)


def _retried(outcome: str, note: str = "the next attempt completes") -> Expected:
    return Expected("completed", outcome, note=note)


def _http(code: str, **more: Any) -> dict[str, Any]:
    return {"code": code, "carrier": "http", **more}


_ALL: tuple[Scenario, ...] = (
    # -- answers
    Scenario("normal", "An ordinary answer.", {}, ("tokens", "rate", "latency", "queue", "tool", "reasoning")),
    Scenario(
        "refusal", "The model itself declines: a refusal part.", {"refusal": True}, (), Expected(outcome="refused")
    ),
    Scenario(
        "max_tokens",
        "Cut short by the token limit.",
        {"carrier": "incomplete", "code": "max_output_tokens"},
        ("tokens", "rate"),
        Expected(outcome="incomplete", note="reason max_output_tokens"),
    ),
    Scenario("list", "Answers with this list.", {}, ()),
    # -- checks
    Scenario(
        "check_then_clear",
        "An announced safety check, then the answer.",
        {"signal": "metadata", "hold": 12.0},
        (*_CHECK, "tokens", "rate"),
        _ok("signalled"),
        spares_fast_tier=True,
    ),
    Scenario(
        "check_repeats",
        "A check announced on in_progress, repeated, with keepalives, riding on the first delta and the end.",
        {"signal": "top", "hold": 30.0, "keepalive": 10.0, "repeats": 1, "use_case": "bio"},
        _CHECK,
        _ok("signalled"),
        spares_fast_tier=True,
    ),
    Scenario(
        "check_mid_output",
        "A check announced in the middle of the output.",
        {"signal": "mid", "hold": 12.0},
        (*_CHECK, "tokens"),
        _ok("signalled"),
        spares_fast_tier=True,
    ),
    Scenario(
        "check_again",
        "A check that clears, half of the answer, and a second check (then a block, with carrier=… code=…).",
        {"signal": "metadata", "hold": 3.0, "again": 12.0},
        (*_CHECK, *_FAIL, "again", "tokens", "rate", "partial"),
        _ok("signalled", "two checks"),
        spares_fast_tier=True,
    ),
    Scenario(
        "check_then_block",
        "An announced check, then a block by two events with two codes.",
        {"signal": "metadata", "hold": 12.0, "carrier": "error_event", "code": "cyber_policy"},
        (*_CHECK, *_FAIL, "partial"),
        _blocked("cyber", "error_event", "signalled"),
        spares_fast_tier=True,
    ),
    Scenario(
        "check_block_after_output",
        "An announced check, a first piece of output, then a block (two events, two codes).",
        {
            "signal": "metadata",
            "hold": 8.0,
            "carrier": "error_event",
            "code": "cyber_policy",
            "reason": "policy",
            "partial": 1,
        },
        (*_CHECK, *_FAIL, "partial"),
        _blocked("cyber", "error_event", "signalled", "after output: the text is withdrawn"),
        spares_fast_tier=True,
    ),
    Scenario(
        "silent_delay",
        "A long silence with an open stream and no announcement, then the answer.",
        {"hold": 60.0},
        ("hold", "keepalive", "tokens", "rate"),
        _ok("suspected"),
        spares_fast_tier=True,
    ),
    Scenario(
        "keepalives",
        "A long silence with keepalive events, then the answer.",
        {"hold": 60.0, "keepalive": 15.0},
        ("hold", "keepalive", "tokens", "rate"),
        _ok("suspected"),
        spares_fast_tier=True,
    ),
    # -- blocks
    Scenario(
        "silent_block",
        "A long silence without announcement, then a block.",
        {"hold": 35.0, "carrier": "error_event", "code": "cyber_policy"},
        ("hold", "keepalive", *_FAIL),
        _blocked("cyber", "error_event", "suspected"),
        spares_fast_tier=True,
    ),
    Scenario(
        "block_before_stream",
        "HTTP 400 before any byte, after a pause.",
        _http("cyber_policy", hold=9.9),
        ("hold", *_FAIL),
        _blocked("cyber", "http_400"),
        spares_fast_tier=True,
    ),
    Scenario(
        "bio_block",
        "An announced check, then response.failed with bio_policy.",
        {
            "signal": "metadata",
            "hold": 12.0,
            "carrier": "response_failed",
            "code": "bio_policy",
            "use_case": "bio",
            "retry_model": "absent",
        },
        (*_CHECK, *_FAIL),
        _blocked("bio", "response_failed", "signalled"),
        spares_fast_tier=True,
    ),
    Scenario(
        "prompt_block",
        "HTTP 400 invalid_prompt before any byte.",
        _http("invalid_prompt", hold=2.0),
        ("hold", *_FAIL),
        _blocked("prompt", "http_400"),
        spares_fast_tier=True,
    ),
    Scenario(
        "flat_error",
        "A block as a flat `error` event and nothing after it.",
        {"carrier": "flat_error", "code": "cyber_policy"},
        (*_FAIL, "partial", "hold"),
        _blocked("cyber", "error_event"),
        spares_fast_tier=True,
    ),
    Scenario(
        "failed_only",
        "A block as response.failed alone, with the precise code.",
        {"carrier": "response_failed", "code": "cyber_policy"},
        (*_FAIL, "partial", "hold"),
        _blocked("cyber", "response_failed"),
        spares_fast_tier=True,
    ),
    Scenario(
        "misalignment",
        "HTTP 403 misalignment_policy_violation.",
        _http("misalignment_policy_violation"),
        ("hold", *_FAIL),
        _blocked("misalignment", "http_403"),
        spares_fast_tier=True,
    ),
    Scenario(
        "misalignment_mid_stream",
        "response.failed with a misalignment object after output.",
        {"carrier": "response_failed", "code": "misalignment_policy_violation", "partial": 10},
        ("partial", *_FAIL),
        _blocked("misalignment", "response_failed", note="after output"),
        spares_fast_tier=True,
    ),
    Scenario(
        "late_code",
        "response.failed with error null, then an error event with the code of a block.",
        {"carrier": "late_error", "code": "content_policy_violation"},
        (*_FAIL, "partial", "hold"),
        _blocked("content_filter", "error_event"),
        spares_fast_tier=True,
    ),
    Scenario(
        "check_then_nameless",
        "An announced check, then response.failed that says nothing: it may be a block that lost its code.",
        {"signal": "metadata", "hold": 3.0, "carrier": "nameless"},
        (*_CHECK, "times"),
        Expected("failed", "server_error", check="signalled", note="not sent again by itself"),
        spares_fast_tier=True,
    ),
    Scenario(
        "content_filter",
        "response.incomplete with reason content_filter after some output.",
        {"carrier": "incomplete", "code": "content_filter", "partial": 2},
        ("partial", "hold", "times"),
        _blocked("content_filter", "incomplete", note="the partial text is withheld"),
        spares_fast_tier=True,
    ),
    # -- access
    Scenario(
        "model_not_found",
        "HTTP 404: unknown model, or not granted.",
        _http("model_not_found"),
        ("times", "only"),
        _failed("access_denied", "or the fallback chain, with disclosure"),
    ),
    Scenario(
        "wrong_project",
        "HTTP 403: the project may not use the model.",
        {"code": "model_not_found", "carrier": "http_403"},
        ("times", "only"),
        _failed("access_denied", "or the fallback chain, with disclosure"),
    ),
    Scenario(
        "wrong_organization",
        "HTTP 401: the organization header doesn't match the key.",
        _http("mismatched_organization"),
        ("times", "org"),
        Expected("expired", "auth_failed", note="the circuit opens; held until the queue deadline"),
    ),
    Scenario(
        "invalid_key",
        "HTTP 401: the key is wrong or revoked.",
        _http("invalid_api_key"),
        ("times",),
        Expected("expired", "auth_failed", note="the circuit opens; held until the queue deadline"),
    ),
    Scenario(
        "region",
        "HTTP 403: the location isn't supported.",
        _http("unsupported_country_region_territory"),
        ("times",),
        _failed("access_denied"),
    ),
    Scenario(
        "verification",
        "HTTP 400 for streams: the organisation isn't verified.",
        _http("unsupported_value", stream_only=True),
        ("times",),
        _failed("access_denied"),
    ),
    Scenario(
        "program_required",
        "HTTP 403: an access program is needed (body without a code).",
        _http("program_required"),
        ("times",),
        _failed("access_denied"),
    ),
    # -- limits and faults
    Scenario(
        "rate_limited",
        "HTTP 429 with retry-after; carrier=response_failed puts it into the stream.",
        _http("rate_limit_exceeded", times=1, retry_after=1.5),
        ("times", "retry_after", "code", "carrier"),
        _retried("rate_limited"),
    ),
    Scenario(
        "rate_limited_in_stream",
        "response.failed rate_limit_exceeded, the delay only in prose.",
        {"carrier": "response_failed", "code": "rate_limit_exceeded", "times": 1, "retry_after": 1.898},
        ("times", "retry_after"),
        _retried("rate_limited"),
    ),
    Scenario(
        "slow_down",
        "HTTP 429 slow_down.",
        _http("slow_down", times=1, retry_after=1.0),
        ("times", "retry_after"),
        _retried("rate_limited"),
    ),
    Scenario(
        "quota",
        "HTTP 429 insufficient_quota; code= takes the other money codes.",
        _http("insufficient_quota"),
        _FAIL,
        Expected("expired", "quota_exhausted", note="the circuit opens; held until the queue deadline"),
    ),
    Scenario(
        "overloaded",
        "HTTP 503 server_is_overloaded with retry-after.",
        _http("server_is_overloaded", times=1, retry_after=5.0),
        ("times", "retry_after", "code"),
        _retried("overloaded"),
    ),
    Scenario(
        "overloaded_in_stream",
        "A keepalive, then an error event server_is_overloaded, then response.failed server_error.",
        {"carrier": "error_event", "code": "server_is_overloaded", "times": 1, "hold": 1.0, "keepalive": 0.5},
        ("times", "hold"),
        _retried("overloaded"),
    ),
    Scenario("server_error", "HTTP 500.", _http("server_error", times=1), _FAIL, _retried("server_error")),
    Scenario(
        "context_too_long",
        "HTTP 400 context_length_exceeded.",
        _http("context_length_exceeded"),
        ("times", "carrier"),
        _failed("context_too_long"),
    ),
    # -- the same through gateways
    *GATEWAYS,
    # -- connections
    Scenario(
        "cut",
        "The connection breaks after some events (a background response goes on and can be resumed).",
        {"how": "rst", "times": 1},
        (*_CUT, "resume"),
        _ok(note="resumed; foreground after output: failed, stream_cut"),
    ),
    Scenario("drop", "Reset before any header.", {"how": "drop", "times": 1}, ("times",), _retried("connect_failed")),
    Scenario("half_frame", "A clean end in the middle of a frame.", {"how": "half", "times": 1}, _CUT, _ok()),
    Scenario(
        "bad_json",
        "One frame of invalid JSON in place of an event, then the stream goes on.",
        {"how": "bad_json", "times": 1},
        _CUT,
        _ok(note="protocol_error, then resumed"),
    ),
    Scenario("hang", "No further bytes, the socket stays open.", {"how": "hang", "times": 1}, _CUT, _ok()),
    Scenario(
        "no_terminal",
        "A clean end without a terminal event.",
        {"how": "no_terminal", "times": 1},
        _CUT,
        _ok(note="stream_cut, then the answer by poll or resume"),
    ),
    Scenario(
        "resume_refused",
        "A cut stream whose resume is refused as too old: polling still works.",
        {"how": "rst", "resume": "refused", "times": 1},
        _CUT,
        _ok(note="by polling"),
    ),
    Scenario(
        "response_lost",
        "A cut stream whose response is gone (404) afterwards.",
        {"how": "rst", "resume": "lost", "times": 1},
        _CUT,
        Expected("failed", "lost", note="its text is paid, so the prompt is not sent again"),
    ),
    Scenario(
        "queued_forever",
        "Never leaves the queue.",
        {"stuck": True},
        ("times",),
        Expected("expired", "timed_out", note="times=1 lets a new create through"),
        spares_fast_tier=True,
    ),
)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        *_ALL,
        *SERVING_SCENARIOS,
        *TOOL_SCENARIOS,
        *SIGNAL_SCENARIOS,
        *BLOCK_SCENARIOS,
        *RESUME_SCENARIOS,
        *WIRE_SHAPE_SCENARIOS,
    )
}


def listing() -> str:
    """Return the list of all scenarios as the text that `[[sim: list]]` answers with."""
    return "\n".join(f"{scenario.name}: {scenario.description}" for scenario in SCENARIOS.values())
