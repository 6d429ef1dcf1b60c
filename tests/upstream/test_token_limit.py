from __future__ import annotations

import json
from typing import Any

import pytest

from tests.upstream.rawserver import RawServer, as_json, plays
from tests.upstream.upstream_calls import ProviderAt, call, drain
from worker.safety import classify
from worker.safety.stream import Rejected
from worker.upstream.token_limit import BOTH, NEW, OLD, TokenLimit

LIMITED = {"params": {"max_output_tokens": 5}}
TOGETHER = {
    "error": {
        "message": "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        "type": "invalid_request_error",
        "param": "max_tokens",
        "code": "invalid_parameter_combination",
    }
}
FORBIDDEN = {"object": "error", "message": "[{'loc': ('body', 'max_completion_tokens')}]", "param": None, "code": 400}


def names(body: dict[str, Any]) -> set[str]:
    return {NEW, OLD} & body.keys()


@pytest.mark.parametrize(("refusal", "then"), [(TOGETHER, {NEW}), (FORBIDDEN, {OLD})])
async def test_a_refusal_of_a_name_changes_what_is_sent_next(
    provider_at: ProviderAt, refusal: object, then: set[str]
) -> None:
    async with RawServer(plays(as_json(400, refusal))) as server:
        provider = provider_at(server.url)
        (rejected,) = await drain(provider.open(call("chat", **LIMITED)))
        assert isinstance(rejected, Rejected)
        failure = classify.rejected(rejected)
        assert (failure.code, failure.retryable) == ("token_limit_name", True)
        await drain(provider.open(call("chat", **LIMITED)))
        await drain(provider.open(call("chat", model="another", **LIMITED)))
        sent = [names(request.json) for request in server.requests]
    assert sent == [{NEW, OLD}, then, {NEW, OLD}]


async def test_it_ends_when_no_name_helps(provider_at: ProviderAt) -> None:
    async with RawServer(plays(as_json(400, TOGETHER))) as server:
        provider = provider_at(server.url)
        rejected = [classify.rejected((await drain(provider.open(call("chat", **LIMITED))))[0]) for _ in range(3)]
    assert [failure.retryable for failure in rejected] == [True, True, False]
    assert rejected[-1].code == "bad_request"


async def test_a_block_that_quotes_a_name_stays_a_block(provider_at: ProviderAt) -> None:
    block = {"error": {"code": "cyber_policy", "message": "max_tokens", "type": "invalid_request"}}
    async with RawServer(plays(as_json(400, block))) as server:
        (rejected,) = await drain(provider_at(server.url).open(call("chat", **LIMITED)))
    assert isinstance(rejected, Rejected)
    assert classify.rejected(rejected).block is not None


@pytest.mark.parametrize("params", [{}, {"max_tokens": 5}, {"max_completion_tokens": 5, "max_output_tokens": 7}])
async def test_what_the_caller_names_is_sent_as_it_is(provider_at: ProviderAt, params: dict[str, Any]) -> None:
    async with RawServer(plays(as_json(400, TOGETHER))) as server:
        (rejected,) = await drain(provider_at(server.url).open(call("chat", params=params)))
        sent = json.loads(server.requests[0].body)
    assert names(sent) == names(params)
    assert isinstance(rejected, Rejected)
    assert not rejected.next_differs


def test_openai_gets_its_own_name_alone() -> None:
    assert TokenLimit("https://api.openai.com/v1").names("m") == (NEW,)
    assert TokenLimit("https://x.openai.azure.com/v1").names("m") == (NEW,)
    assert TokenLimit("http://127.0.0.1:8000/v1").names("m") == BOTH
    assert TokenLimit("http://evil-openai.com/v1").names("m") == BOTH
