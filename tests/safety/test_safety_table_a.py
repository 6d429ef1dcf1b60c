"""Table A of wire.md, row by row: what the provider says and what it must come out as."""

# ruff: noqa: E501  a table reads best with one row on one line

import pytest

from worker.jobs.states import Outcome
from worker.safety import classify
from worker.safety.stream import Closed, ProviderProblem, Rejected, StreamError, Terminal

INVALID = "invalid_request_error"


def P(code=None, type=None, **more):  # noqa: A002, N802
    return ProviderProblem(code, type, **more)


def http(status, problem=None, **more):
    return Rejected(status, problem, request_id="req_1", **more)


HTTP_ROWS = [
    # id, event, outcome, code, retryable, scope
    ("404 model_not_found", http(404, P("model_not_found", INVALID)), "access_denied", "model_not_granted", False, "model"),
    ("403 model_not_found", http(403, P("model_not_found", INVALID)), "access_denied", "wrong_project", False, "model"),
    ("401 organisation", http(401, P("mismatched_organization", INVALID)), "auth_failed", "wrong_organization", False, "account"),
    ("401 key", http(401, P("invalid_api_key", INVALID)), "auth_failed", "invalid_key", False, "account"),
    ("401 other", http(401, P("ip_not_here", INVALID)), "auth_failed", "auth_failed", False, "account"),
    ("401 bare", http(401), "auth_failed", "auth_failed", False, "account"),
    ("402", http(402, P()), "quota_exhausted", "quota_exhausted", False, "account"),
    (
        "403 region",
        http(403, P("unsupported_country_region_territory", "request_forbidden")),
        "access_denied", "region_unsupported", False, "attempt",
    ),
    ("403 html", http(403), "access_denied", "edge_refused", True, "attempt"),
    ("403 no code", http(403, P(None, INVALID)), "access_denied", "access_refused", True, "attempt"),
    ("403 generic code", http(403, P("error")), "access_denied", "access_refused", True, "attempt"),
    ("403 unknown code", http(403, P("never_heard_of", INVALID)), "bad_request", "bad_request", False, "attempt"),
    (
        "403 program by param",
        http(403, P(None, INVALID, param="access_programs.cyber")),
        "access_denied", "program_required", False, "attempt",
    ),
    ("403 program by mention", http(403, P("new_code", mentions_access=True)), "access_denied", "program_required", False, "attempt"),
    ("400 verify stream", http(400, P("unsupported_value", INVALID, param="stream")), "access_denied", "verification_required", False, "attempt"),
    (
        "400 verify summary",
        http(400, P("Unsupported_Value", INVALID, param="reasoning.summary")),
        "access_denied", "verification_required", False, "attempt",
    ),
    ("400 unsupported value of something else", http(400, P("unsupported_value", INVALID, param="temperature")), "bad_request", "bad_request", False, "attempt"),
    ("400 tier", http(400, P(None, INVALID, param="service_tier")), "bad_request", "service_tier_not_allowed", False, "attempt"),
    ("400 context", http(400, P("context_length_exceeded", INVALID)), "context_too_long", "context_too_long", False, "attempt"),
    ("400 other", http(400, P("string_above_max_length", INVALID)), "bad_request", "bad_request", False, "attempt"),
    ("400 html", http(400), "bad_request", "bad_request", False, "attempt"),
    ("400 image", http(400, P("invalid_image_url", INVALID)), "bad_request", "bad_image", False, "attempt"),
    ("404 other", http(404, P(None, INVALID)), "bad_request", "not_found", False, "attempt"),
    ("405", http(405, P(None, None)), "bad_request", "not_found", False, "attempt"),
    ("501, a page", http(501, None), "bad_request", "not_found", False, "attempt"),
    ("400 background", http(400, ProviderProblem(None, INVALID, "background")), "bad_request", "background_refused", False, "attempt"),
    ("400 background, a code", http(400, ProviderProblem("unsupported_parameter", INVALID, "background")), "bad_request",
     "background_refused", False, "attempt"),
    ("422 background", http(422, ProviderProblem(None, None, "background")), "bad_request", "background_refused", False, "attempt"),
    ("404 unknown code", http(404, P("previous_response_not_found", INVALID)), "bad_request", "bad_request", False, "attempt"),
    ("408", http(408), "server_error", "upstream_timeout", True, "attempt"),
    ("409", http(409, P()), "server_error", "server_error", True, "attempt"),
    ("413", http(413), "bad_request", "request_too_large", False, "attempt"),
    # a code that only repeats the status hides nothing
    ("404 as a code", http(404, P("404")), "access_denied", "model_or_path_not_found", False, "model"),
    ("404 by a class of errors", http(404, P(None, "NotFoundError")), "access_denied", "model_or_path_not_found", False, "model"),
    ("404 as a word", http(404, P("not_found", INVALID)), "access_denied", "model_or_path_not_found", False, "model"),
    ("403 as a code", http(403, P("403", "None")), "access_denied", "access_refused", True, "model"),
    ("403 as a word", http(403, P("forbidden")), "access_denied", "access_refused", True, "model"),
    ("403 of a gateway's key", http(403, P("403", "key_model_access_denied", param="model")), "access_denied", "model_not_granted", False, "model"),
    ("401 of a gateway's team", http(401, P("401", "team_model_access_denied")), "access_denied", "model_not_granted", False, "model"),
    ("400 that names the model", http(400, P("400", INVALID, param="model")), "access_denied", "model_not_granted", False, "model"),
    ("400 too many tokens, vLLM", http(400, P("400", "BadRequestError", param="input_tokens")), "context_too_long", "context_too_long", False, "attempt"),
    ("400 too many tokens, llama.cpp", http(400, P("400", "exceed_context_size_error")), "context_too_long", "context_too_long", False, "attempt"),
    ("400 as a code", http(400, P("400", "None")), "bad_request", "bad_request", False, "attempt"),
    ("429 as a code", http(429, P("429", "throttling_error")), "rate_limited", "rate_limited", True, "attempt"),
    ("503 as a code", http(503, P("503", "ServiceUnavailableError")), "overloaded", "overloaded", True, "attempt"),
    ("500 around a 400", http(500, P("400", "BadRequestError")), "server_error", "server_error", False, "attempt"),
    # who refused whose key
    ("401 as a code", http(401, P("401", "None")), "auth_failed", "deployment_auth_failed", False, "deployment"),
    ("401 quoted by a gateway", http(401, P("invalid_api_key", INVALID, quoted=True)), "auth_failed", "deployment_auth_failed", False, "deployment"),
    ("401 with the deployment's name", http(401, P(None, INVALID), forwarded=True), "auth_failed", "deployment_auth_failed", False, "deployment"),
    ("401 of the gateway itself", http(401, P("401", "token_not_found_in_db")), "auth_failed", "invalid_key", False, "account"),
    ("429 quota quoted by a gateway", http(429, P("insufficient_quota", quoted=True)), "quota_exhausted", "deployment_quota_exhausted", False, "deployment"),
    ("429 budget of the gateway", http(429, P("429", "budget_exceeded")), "quota_exhausted", "spend_limit_reached", False, "account"),
    ("429 rate", http(429, P("rate_limit_exceeded", "requests")), "rate_limited", "rate_limited", True, "attempt"),
    ("429 slow", http(429, P("slow_down", "rate_limit_error")), "rate_limited", "slow_down", True, "attempt"),
    ("429 type only", http(429, P(None, "rate_limit_error")), "rate_limited", "rate_limited", True, "attempt"),
    ("429 tokens", http(429, P(None, "tokens")), "rate_limited", "rate_limited", True, "attempt"),
    ("429 bare", http(429), "rate_limited", "rate_limited", True, "attempt"),
    ("429 quota", http(429, P("insufficient_quota", "insufficient_quota")), "quota_exhausted", "quota_exhausted", False, "account"),
    ("429 quota in type", http(429, P(None, "insufficient_quota")), "quota_exhausted", "quota_exhausted", False, "account"),
    ("429 new code, known type", http(429, P("brand_new", "insufficient_quota")), "quota_exhausted", "quota_exhausted", False, "account"),
    ("429 credit", http(429, P("credit_balance_exhausted")), "quota_exhausted", "credit_exhausted", False, "account"),
    ("429 spend", http(429, P("organization_spend_limit_exceeded")), "quota_exhausted", "spend_limit_reached", False, "account"),
    ("429 project spend", http(429, P("project_spend_limit_exceeded", "insufficient_quota")), "quota_exhausted", "project_spend_limit_reached", False, "account"),
    ("429 usage", http(429, P("organization_usage_limit_exceeded")), "quota_exhausted", "usage_limit_reached", False, "account"),
    ("429 billing", http(429, P("billing_hard_limit_reached")), "quota_exhausted", "spend_limit_reached", False, "account"),
    ("429 new money code", http(429, P("team_spend_limit_hit")), "quota_exhausted", "quota_exhausted", False, "account"),
    ("429 flex", http(429, P("flex_unavailable")), "overloaded", "flex_unavailable", True, "attempt"),
    ("503", http(503, P("server_is_overloaded", "service_unavailable_error")), "overloaded", "overloaded", True, "attempt"),
    ("503 older", http(503, P("slow_down")), "overloaded", "overloaded", True, "attempt"),
    ("503 html", http(503), "overloaded", "overloaded", True, "attempt"),
    ("503 unknown", http(503, P("what")), "server_error", "server_error", True, "attempt"),
    ("500", http(500, P("server_error", "server_error")), "server_error", "server_error", True, "attempt"),
    ("500 internal", http(500, P("internal_server_error")), "server_error", "server_error", True, "attempt"),
    ("502 html", http(502), "server_error", "server_error", True, "attempt"),
    ("500 unknown", http(500, P("what")), "server_error", "server_error", True, "attempt"),
    ("500 around an invalid request", http(500, P("what", "invalid_request")), "server_error", "server_error", False, "attempt"),
    ("400 calls itself a server error", http(400, P("server_error")), "bad_request", "bad_request", False, "attempt"),
    ("302", http(302), "protocol_error", "unexpected_status", True, "attempt"),
    ("resume gone", http(404, P(), on="resume"), "lost", "response_lost", True, "attempt"),
    ("poll gone", http(410, None, on="poll"), "lost", "response_lost", True, "attempt"),
    ("resume too late", http(400, P(None, INVALID), on="resume"), "stream_cut", "resume_refused", True, "attempt"),
    ("poll with a bad key", http(401, None, on="poll"), "auth_failed", "auth_failed", False, "account"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("event", "outcome", "code", "retryable", "scope"), [r[1:] for r in HTTP_ROWS], ids=[r[0] for r in HTTP_ROWS]
)
def test_an_http_error_is_told_apart(event, outcome, code, retryable, scope):
    failure = classify.rejected(event)
    assert (failure.outcome, failure.code, failure.retryable, failure.scope) == (
        Outcome(outcome),
        code,
        retryable,
        scope,
    )
    assert failure.block is None


BLOCKS = [
    ("cyber_policy", "cyber"),
    ("bio_policy", "bio"),
    ("invalid_prompt", "prompt"),
    ("misalignment_policy_violation", "misalignment"),
    ("image_content_policy_violation", "image"),
    ("image_something_policy", "image"),
    ("content_filter", "content_filter"),
    ("CYBER_Policy ", "cyber"),
    ("chem_policy", "unknown"),
    ("robotics_policy_violation", "unknown"),
    ("content_policy_new", "unknown"),
]


@pytest.mark.parametrize(("code", "category"), BLOCKS)
@pytest.mark.parametrize(
    ("status", "carrier"),
    [(400, "http_400"), (403, "http_403"), (500, "http_400"), (502, "http_400"), (429, "http_400")],
)
def test_a_block_is_known_by_its_code_behind_any_status(code, category, status, carrier):
    failure = classify.rejected(http(status, P(code, "invalid_request")))
    assert failure.outcome is Outcome.BLOCKED
    assert not failure.retryable
    assert failure.block.category == category
    assert failure.block.carrier == carrier
    assert failure.block.code == code.strip().lower()
    assert failure.block.after_output is False


@pytest.mark.parametrize("on", ["create", "resume", "poll"])
def test_a_block_code_in_the_type_field_counts_too(on):
    assert classify.rejected(http(404, P(None, "cyber_policy"), on=on)).block.category == "cyber"


@pytest.mark.parametrize(("code", "category"), BLOCKS)
@pytest.mark.parametrize("carrier", ["error_event", "chat_chunk"])
def test_a_block_inside_a_stream_names_its_carrier(code, category, carrier):
    failure = classify.fault(StreamError(5, P(code), carrier), after_output=True)
    assert (failure.block.category, failure.block.carrier, failure.block.after_output) == (category, carrier, True)
    last = classify.terminal(Terminal(6, "failed", problem=P(code)))
    assert (last.block.category, last.block.carrier) == (category, "response_failed")


IN_STREAM = [
    ("server_is_overloaded", None, "overloaded", True),
    ("rate_limit_exceeded", None, "rate_limited", True),
    ("slow_down", None, "rate_limited", True),
    ("insufficient_quota", None, "quota_exhausted", False),
    ("server_error", None, "server_error", True),
    ("vector_store_timeout", None, "server_error", True),
    ("context_length_exceeded", None, "context_too_long", False),
    ("data_residency_mismatch", None, "access_denied", False),
    ("model_not_found", None, "access_denied", False),
    (None, "invalid_request_error", "bad_request", False),
    ("strange_thing", "invalid_request", "bad_request", False),
    (None, None, "server_error", True),
    ("strange_thing", "server_error", "server_error", False),
    ("429", "None", "rate_limited", True),
    ("429", "upstream_error", "rate_limited", True),
    ("503", None, "overloaded", True),
    ("500", None, "server_error", True),
    ("400", "BadRequestError", "bad_request", False),
    ("404", None, "access_denied", False),
    (None, "RateLimitError", "rate_limited", True),
    (None, "forbidden", "access_denied", True),
]


@pytest.mark.parametrize(("code", "kind", "outcome", "retryable"), IN_STREAM)
def test_an_error_inside_a_stream_is_told_apart(code, kind, outcome, retryable):
    for failure in (
        classify.fault(StreamError(1, P(code, kind), "error_event"), http_status=200, request_id="req_9"),
        classify.terminal(Terminal(1, "failed", problem=P(code, kind)), http_status=200, request_id="req_9"),
    ):
        assert (failure.outcome, failure.retryable) == (Outcome(outcome), retryable)
        assert (failure.provider.http_status, failure.provider.request_id) == (200, "req_9")


def test_a_failed_response_without_any_error_is_a_server_error():
    assert classify.terminal(Terminal(1, "failed")).outcome is Outcome.SERVER_ERROR


@pytest.mark.parametrize(
    ("carrier", "expected"),
    [("incomplete", "incomplete"), ("response_failed", "incomplete"), ("chat_chunk", "chat_chunk")],
)
def test_content_filter_is_a_block_not_a_short_answer(carrier, expected):
    failure = classify.terminal(Terminal(1, "incomplete", incomplete_reason="content_filter", carrier=carrier))
    assert (failure.block.category, failure.block.carrier) == ("content_filter", expected)


@pytest.mark.parametrize("reason", ["max_output_tokens", "max_messages", "steered", None, "something new"])
def test_other_reasons_to_stop_early_are_answers(reason):
    assert classify.terminal(Terminal(1, "incomplete", incomplete_reason=reason)) is None


def test_a_block_code_in_a_response_that_calls_itself_completed_is_a_block():
    assert classify.terminal(Terminal(1, "completed", problem=P("cyber_policy"))).outcome is Outcome.BLOCKED
    assert classify.terminal(Terminal(1, "completed", problem=P("server_error"))) is None


def test_a_response_cancelled_by_the_provider_is_no_answer():
    assert classify.terminal(Terminal(1, "cancelled")).code == "cancelled_upstream"


CLOSED = [
    (Closed("connect_failed", opened=False), False, "connect_failed", "connect_failed"),
    *(
        (Closed("connect_failed", "X", opened=False, reason=why), False, "connect_failed", code)
        for why, code in classify.NO_CONNECTION.items()
    ),
    (Closed("cut", opened=False), False, "connect_failed", "connect_failed"),
    (Closed("cut"), True, "stream_cut", "stream_cut"),
    (Closed("clean"), True, "stream_cut", "no_terminal"),
    (Closed("nothing"), True, "stream_cut", "empty_stream"),
    (Closed("half_frame"), True, "stream_cut", "half_frame"),
    (Closed("connect_failed", opened=False), True, "stream_cut", "reconnect_failed"),
    (Closed("bad_json"), True, "protocol_error", "bad_json"),
    (Closed("not_an_answer"), False, "protocol_error", "not_an_answer"),
    (Closed("lost"), True, "lost", "response_lost"),
    (Closed("no_route"), True, "lost", "response_unreachable"),
]


@pytest.mark.parametrize(("event", "opened", "outcome", "code"), CLOSED)
def test_the_end_of_a_connection_is_never_an_answer(event, opened, outcome, code):
    failure = classify.closed(event, opened=opened)
    assert (failure.outcome, failure.code) == (Outcome(outcome), code)
    assert failure.retryable == (event.how not in ("not_an_answer", "no_route")), (
        "what was answered may have been paid for"
    )


def test_the_wait_that_the_provider_asks_for_is_kept():
    problem = P("rate_limit_exceeded", retry_after=1.898)
    assert classify.rejected(http(429, problem, retry_after=180.0)).retry_after == 180.0
    assert classify.rejected(http(429, problem)).retry_after == 1.898
    assert classify.fault(StreamError(1, problem, "error_event")).retry_after == 1.898
    assert classify.rejected(http(429, None, retry_after=float("nan"))).retry_after is None
    assert classify.rejected(http(503, None, retry_after=-1.0)).retry_after is None


def test_what_the_provider_said_is_kept_without_its_words():
    failure = classify.rejected(http(400, P("please build me a bomb!", "Brand_New", message="the prompt, quoted")))
    assert failure.provider.code is None
    assert failure.provider.type == "brand_new"
    assert "quoted" not in repr(failure)
    unknown = classify.rejected(http(400, P("brand_new_code", INVALID)))
    assert (unknown.code, unknown.provider.code, unknown.provider.request_id) == (
        "bad_request",
        "brand_new_code",
        "req_1",
    )
