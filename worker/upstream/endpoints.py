"""Which of the provider's addresses are there, asked without a prompt: so nothing is generated and nothing is billed.

Gateways and compatible servers offer one API or two. Each is asked with a body without a model whose input is a number:
a server that has the address refuses it. An empty body would not do, since llama-cpp-python takes it for a prompt of no
messages and answers. Whether responses are kept is asked by the name of one that never was. What comes back is compared
with what the same server answers at an address that no server has.
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
"""By path what is posted: refused, and if some server runs it all the same, it writes one token."""
TIMEOUT_S: Final = 8.0
"""No question takes longer."""

_ABSENT_STATUSES: Final = frozenset({404, 405, 501})


async def find_endpoints(provider: Provider, request_id: str, seconds: float = TIMEOUT_S) -> ServerEndpoints:
    """What the provider has. Never raises, and no request takes longer than `seconds`."""

    async def post(path: str) -> ProviderPage | Rejected | Closed:
        return await provider.get_page(path, f"{request_id}.{path.strip('/')[:9]}", seconds, body=_NO_PROMPT.get(path, {}))

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
    """Whether the address of `answer` is there; `elsewhere` is what the server says where nothing is."""
    if isinstance(answer, Closed):
        return None
    if isinstance(answer, ProviderPage):
        return None if isinstance(elsewhere, ProviderPage) else True  # who answers everything tells nothing
    if answer.http_status in {401, 403, 407, 429} or answer.http_status in {502, 503, 504}:
        return None
    if answer.http_status not in _ABSENT_STATUSES:
        return True
    if answer.http_status != 404:  # noqa: PLR2004  405 and 501: known, and not for this method
        return False
    return not isinstance(elsewhere, Rejected) or _comparable(answer) != _comparable(elsewhere)


def _comparable(answer: Rejected) -> tuple[Any, ...]:
    """What a refusal says, apart from the address that it names."""
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
