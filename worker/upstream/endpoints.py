"""Finds out which endpoints the provider has, without a prompt: nothing is generated and nothing is billed.

Gateways and compatible servers offer one API or two. Each is called with a body without a model whose input is a
number: a server that has the endpoint refuses it. An empty body would not do, since llama-cpp-python takes it for a
prompt of no messages and answers. Whether responses are kept is tested with an id that never existed. Each answer is
compared with the same server's answer at a path that no server has.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from worker.safety.endpoint import ServerEndpoints
from worker.safety.stream import Closed, Rejected
from worker.upstream.client import Provider, ProviderPage

_UNUSED_NAME: Final = "vigil-asks-what-is-here"
_NO_PROMPT: Final[dict[str, dict[str, Any]]] = {
    "/responses": {"input": 0, "max_output_tokens": 1},
    "/chat/completions": {"messages": 0, "max_tokens": 1},
}
"""The body to post by path: it is refused, and a server that runs it all the same writes one token."""
TIMEOUT_S: Final = 8.0
"""The limit for each request."""

_ABSENT_STATUSES: Final = frozenset({404, 405, 501})


async def find_endpoints(provider: Provider, request_id: str, seconds: float = TIMEOUT_S) -> ServerEndpoints:
    """Return which endpoints the provider has. Never raises; no request takes longer than `seconds`."""

    async def post(path: str) -> ProviderPage | Rejected | Closed:
        return await provider.get_page(
            path, f"{request_id}.{path.strip('/')[:9]}", seconds, body=_NO_PROMPT.get(path, {})
        )

    async def get(path: str) -> ProviderPage | Rejected | Closed:
        return await provider.get_page(path, f"{request_id}.get", seconds)

    nowhere, nothing, responses, chat, kept = await asyncio.gather(
        post(f"/{_UNUSED_NAME}"),
        get(f"/{_UNUSED_NAME}/{_UNUSED_NAME}"),
        post("/responses"),
        post("/chat/completions"),
        get(f"/responses/{_UNUSED_NAME}"),
    )
    return ServerEndpoints(_exists(responses, nowhere), _exists(kept, nothing), _exists(chat, nowhere))


def _exists(answer: ProviderPage | Rejected | Closed, elsewhere: ProviderPage | Rejected | Closed) -> bool | None:
    """Return whether the endpoint of `answer` exists; `elsewhere` is the server's answer at a path that does not."""
    if isinstance(answer, Closed):
        return None
    if isinstance(answer, ProviderPage):
        return (
            None if isinstance(elsewhere, ProviderPage) else True
        )  # a server that answers everything is not conclusive
    if answer.http_status in {401, 403, 407, 429} or answer.http_status in {502, 503, 504}:
        return None
    if answer.http_status not in _ABSENT_STATUSES:
        return True
    if answer.http_status != 404:  # noqa: PLR2004  405 and 501: known, and not for this method
        return False
    return not isinstance(elsewhere, Rejected) or _comparable(answer) != _comparable(elsewhere)


def _comparable(answer: Rejected) -> tuple[Any, ...]:
    """Return what a refusal says, without the path that it names."""
    problem = answer.problem
    if problem is None:
        return (answer.http_status, None)
    message = problem.message or ""
    for word in (
        f"{_UNUSED_NAME}/{_UNUSED_NAME}",
        f"responses/{_UNUSED_NAME}",
        "chat/completions",
        "responses",
        _UNUSED_NAME,
    ):
        message = message.replace(word, "*")
    return (answer.http_status, problem.code, problem.type, message)
