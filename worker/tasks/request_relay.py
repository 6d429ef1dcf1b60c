"""Sends a request of an app to the provider at once and returns what it says: no job, no retry, no other model.

For what needs the provider and is no response: counting tokens, compacting. A model that is known to be denied and an
open circuit are not called, as with jobs.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.errors import ContentDamaged, Failure, StoreUnavailable
from worker.jobs.record import JobError
from worker.safety import classify
from worker.safety.messages import block_error, failure_error, job_error
from worker.safety.stream import Closed, Rejected
from worker.store.audit.trail import Trail
from worker.store.provider.relayed_requests import RelayedRequests
from worker.tasks.account_connections import AccountConnections
from worker.tasks.store_retry import retry_store
from worker.upstream.client import ProviderPage

_NOTE_SECONDS: Final = 60.0  # more than it takes to record what was used
_COUNTS: Final = ("input_tokens", "output_tokens", "total_tokens")
_PATHS: Final = frozenset({"/responses/input_tokens", "/responses/compact"})


class RequestRelay:
    """Sends requests; a reply is {"body", "request_id"} or {"error": a JobError, "http_status"}."""

    def __init__(
        self,
        requests: RelayedRequests,
        accounts: AccountConnections,
        trail: Trail,
    ) -> None:
        self._requests, self._accounts, self._trail = requests, accounts, trail

    async def relay(self, name: str, seconds: float) -> bool:
        """Send the request of this name, which has one of its app's places; return whether there is a reply."""
        try:
            sent = await self._requests.take(name)
            if sent is None or sent.get("path") not in _PATHS:
                return False
            app = str(sent["app"])
            await self._requests.places.keep(app, name, seconds + _NOTE_SECONDS)
            try:
                await self._requests.reply(name, await self._reply(name, sent, seconds))
            finally:
                with suppress(StoreUnavailable):  # then the place ends by itself
                    await self._requests.places.give_back(app, name)
        except (StoreUnavailable, ContentDamaged):
            return False
        return True

    async def _reply(self, name: str, sent: dict[str, Any], seconds: float) -> dict[str, Any]:
        body, model = sent["body"], str(sent["body"].get("model"))
        account = self._accounts.of(str(sent["app"]), model)
        denied = account.access.skipped(model)
        if denied is not None:
            return _refusal(job_error(denied.code))
        permission = await account.circuit.gate(name)
        if permission.state == "open":
            return _refusal(job_error(permission.reason, provider=permission.provider))
        try:
            async with asyncio.timeout(seconds):
                page = await account.provider.get_page(sent["path"], f"relay-{name}", seconds, body)
        except TimeoutError:
            return _refusal(job_error("timed_out"))
        if isinstance(page, Rejected):
            return _refusal(_error(classify.rejected(page)), page.http_status)
        if isinstance(page, Closed):
            return _refusal(_error(classify.closed(page)))
        if page.body.get("usage"):
            await retry_store(lambda: self._note(sent, page, account.name))
        return {"body": page.body, "request_id": page.request_id}

    async def _note(self, sent: dict[str, Any], page: ProviderPage, account: str) -> None:
        """Record in the app's audit trail what it has used."""
        used = page.body["usage"] if isinstance(page.body["usage"], dict) else {}
        await self._trail.note(
            "response.compacted",
            app=sent["app"],
            job_id=None,
            by=sent["key_id"],
            why="on request of the app",
            model=sent["body"].get("model"),
            input_digest=sent["input_digest"],
            usage={name: used[name] for name in _COUNTS if isinstance(used.get(name), int)},
            request_id=page.request_id,
            **({"account": account} if account != DEFAULT_ACCOUNT else {}),
        )


def _error(failure: Failure) -> JobError:
    return block_error(failure.block) if failure.block is not None else failure_error(failure)


def _refusal(error: JobError, http_status: int | None = None) -> dict[str, Any]:
    return {"error": error.model_dump(mode="json"), "http_status": http_status}
