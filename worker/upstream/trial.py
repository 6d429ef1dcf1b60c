"""Sends one small request to a model, as a job would: the only sure test that a mode fits. It costs tokens."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from worker.jobs.states import Outcome
from worker.safety.endpoint import Mode
from worker.safety.signals import AttemptVerdict
from worker.safety.stream import Closed, Delta, Rejected
from worker.safety.watch import AttemptWatch
from worker.upstream.call import UpstreamCall
from worker.upstream.client import Provider
from worker.upstream.session import Session

TIMEOUT_S: Final = 60.0
"""The limit for a trial."""

_PROMPT: Final = "Reply with the word: ok"
_MAX_TOKENS: Final = 64  # a reasoning model needs some before its first word
_ABSENT_STATUSES: Final = frozenset({404, 405, 501})


class EndpointTrial(NamedTuple):
    """The result. `kept`: whether the response could be read again; None if that was not tested or not answered."""

    verdict: AttemptVerdict
    response_id: str | None
    characters: int
    kept: bool | None


async def try_model(provider: Provider, model: str, mode: Mode, request_id: str) -> EndpointTrial:
    """Send one small request to `model` and read the answer to its end. The caller limits its time."""
    loop = asyncio.get_running_loop()
    params = {"max_output_tokens": _MAX_TOKENS}
    call = UpstreamCall(model=model, mode=mode, client_request_id=request_id, input=_PROMPT, params=params)
    watch = AttemptWatch(model, checked=False, now=loop.time())
    session = Session(provider, call)
    characters = 0
    try:
        async for batch in session.batches():
            for event in batch:
                characters += len(event.text) if isinstance(event, Delta) else 0
                watch.feed(event, loop.time())
    finally:
        await session.aclose()
    watch.feed(Closed("clean"), loop.time())  # changes nothing after an end
    verdict = watch.verdict or AttemptVerdict(Outcome.PROTOCOL_ERROR)
    kept = None
    if mode == "background" and session.response_id is not None:
        first = (await provider.poll(session.response_id, f"{request_id}.p"))[0]
        kept = None if isinstance(first, Closed) else not isinstance(first, Rejected)
        if isinstance(first, Rejected) and first.http_status not in _ABSENT_STATUSES:
            kept = None
    return EndpointTrial(verdict, session.response_id, characters, kept)
