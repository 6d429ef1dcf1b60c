"""Sends webhooks: takes due messages by lease and sends many at once, each target at its own pace.

Delivery is at least once: a try whose receipt was not stored is repeated by the worker that takes the message next,
under the same id. Of one job, one message at a time goes to a target, in the order of its events; one that failed waits
for its retry and no longer delays those behind it. A dead or slow target has its own queue and a few slots, so it
delays no other; an app with many such targets gets no more slots than it leaves free. How many messages a receiver gets
that does not acknowledge them is bounded whatever URLs an app gives it (claim_due.lua, ops/design/webhooks.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable, Refused, StoreUnavailable
from worker.jobs.timestamps import iso_ms
from worker.jobs.view_schema import MessageState
from worker.settings import Settings
from worker.store import channels
from worker.store.apps import Apps
from worker.store.connection.memory_guard import MemoryGuard
from worker.store.connection.subscriber import Subscriber
from worker.store.end_users.ledger_entries import QuarantineLimits
from worker.store.jobs.repository import Jobs, retention_of
from worker.store.lifecycle.erasure import schedule_erasure
from worker.store.values import report_unreadable
from worker.store.webhooks.delivery_queue import ClaimedMessage, DeliveryQueue
from worker.store.webhooks.endpoints import Endpoints
from worker.store.webhooks.failing_endpoints import FailurePatience
from worker.store.webhooks.outbox import OutboxMessage
from worker.tasks.delivery.outbox_relay import OutboxRelay, receiver_name
from worker.tasks.loop import loop_pass
from worker.tasks.store_retry import retry_store
from worker.telemetry.events import emit
from worker.telemetry.internal_errors import report_internal_error
from worker.telemetry.tracing import delivering, for_receiver
from worker.webhooks.guard import AddressPolicy, CheckedUrl, check_url
from worker.webhooks.message import shows_answer
from worker.webhooks.resolver import SystemResolver
from worker.webhooks.schedule import TryVerdict, max_duration, next_delay, verdict
from worker.webhooks.sender import TOTAL_TIMEOUT_S, UNREACHABLE, TryResult, WebhookSender
from worker.webhooks.signing import signed_headers

MAX_CONCURRENT: Final = 256
MAX_PER_TARGET: Final = 8
FAILING_AFTER: Final = 5
"""Failures in a row after which a target gets one try at a time, so that many dead ones leave slots free."""
_IDLE_POLL_S: Final = 1.0
_UNREADABLE_RETRY_S: Final = 60.0
_STORE_RETRY_S: Final = 0.5
_SHUTDOWN_GRACE_S: Final = 2.0
_INTERNAL_ERROR: Final = "An internal error of Vigil; the message will be tried again."
_NO_SECRET: Final = "The app has no secret to sign with."  # noqa: S105  a sentence


class _Destination(NamedTuple):
    """Where a message is sent now, the secrets that sign it, and the standing endpoints that get it there."""

    url: str
    secrets: Sequence[str]
    endpoints: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    """Endpoints that had the same URL when the message was made, and another one since: they get it afterwards."""


class Dispatcher:
    """Relays messages from the outbox to the targets' queues and sends them, until cancelled."""

    def __init__(
        self, redis: ArqRedis, clock: Clock, settings: Settings, worker_id: str, *, sender: WebhookSender | None = None
    ) -> None:
        self._clock, self._lease, self._delays = clock, settings.lease_seconds, settings.webhook_schedule
        self._policy = AddressPolicy.of(settings)
        self._resolver = SystemResolver()
        self._sender = sender or WebhookSender(self._policy, self._resolver, clock, total=TOTAL_TIMEOUT_S)
        self._apps, self._endpoints = Apps(redis, clock), Endpoints(redis, clock)
        self._deliveries = DeliveryQueue(
            redis,
            worker_id,
            per_target=MAX_PER_TARGET,
            rate=settings.webhook_rate,
            keep=settings.result_ttl,
            max_pending=round(max_duration(self._delays)),
            memory=MemoryGuard(redis, clock, app_share=settings.app_memory_percent),
            patience=FailurePatience(settings.webhook_disable_days),
        )
        limits = QuarantineLimits(
            settings.quarantine_blocks, settings.quarantine_window_seconds, settings.quarantine_limited_seconds
        )
        jobs = Jobs(redis, clock, retention_of(settings), limits)
        self._relay = OutboxRelay(
            redis,
            jobs,
            self._deliveries,
            self._endpoints,
            clock,
            root_path=settings.root_path,
            public_url=settings.public_url,
        )
        self._redis = redis
        self._wake = asyncio.Event()
        # a message that is missed is found by the poll, a second later
        self._subscriber = Subscriber(redis, lambda *_: self._wake.set(), lambda _: self._wake.set())
        self._subscriber.subscribe(channels.OUTBOX_FILLED)
        self._sending: dict[asyncio.Task[None], ClaimedMessage] = {}

    async def run(self) -> None:
        """Send until cancelled; then give the tries under way a moment, and release the leases of the rest."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._subscriber.run(), name="webhook subscription")
                group.create_task(self._renew_leases(), name="webhook leases")
                await self._loop()
        finally:
            await self._finish()

    async def _loop(self) -> None:
        while not _cancelled():
            self._wake.clear()
            more, pause = False, _STORE_RETRY_S
            with contextlib.suppress(StoreUnavailable):
                with loop_pass("messages to targets"):
                    more = await self._relay.relay()
                with loop_pass("messages to send"):
                    pause = await self._take()
            if more:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
        raise asyncio.CancelledError

    async def _take(self) -> float:
        """Start to send what is due, as slots allow; return the seconds until the next look at the queues."""
        free = MAX_CONCURRENT - len(self._sending)
        if free <= 0:
            return _IDLE_POLL_S  # the end of a try wakes the loop
        under_way = Counter(one.message.app for one in self._sending.values())
        due, taken = await self._deliveries.claim_due(free, self._lease, FAILING_AFTER, under_way)
        for one in taken:
            task = asyncio.create_task(self._deliver(one), name=f"webhook {one.message.id}")
            self._sending[task] = one
            task.add_done_callback(self._task_done)
        return min(_IDLE_POLL_S, max(0.002, due)) if due >= 0 else _IDLE_POLL_S

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._sending.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            report_internal_error("webhook.fault", error)
        self._wake.set()

    async def _renew_leases(self) -> None:
        """Renew the leases of the messages that are being sent."""
        while not _cancelled():
            await asyncio.sleep(self._lease / 3)
            with contextlib.suppress(StoreUnavailable), loop_pass("leases of messages"):
                await self._deliveries.extend_lease(list(self._sending.values()), self._lease)

    async def _finish(self) -> None:
        if self._sending:
            await asyncio.wait(self._sending, timeout=_SHUTDOWN_GRACE_S)
        left = dict(self._sending)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        # in a task of its own: in a cancelled one, Python 3.11.2 turns a timeout inside redis-py into another cancel
        giving_back = asyncio.create_task(self._deliveries.extend_lease(list(left.values()), 0))
        with contextlib.suppress(StoreUnavailable):
            await giving_back
        self._resolver.close()

    async def _deliver(self, taken: ClaimedMessage) -> None:
        """Make one try and store its receipt. Without Redis the lease runs out, and the message is sent again."""
        message, at = taken.message, self._clock.now()
        with contextlib.suppress(StoreUnavailable):
            try:
                if taken.unreadable is not None:
                    raise taken.unreadable
                destination = await self._destination(taken)
            except KeyMissing as missing:
                emit("encryption.key_missing", job_id=message.job_id, code=missing.kid)
                await self._store_result(taken, message, again_in=_UNREADABLE_RETRY_S)
                return
            except RecordUnreadable as error:  # the endpoint or the app's record, which operators may repair
                report_unreadable(error)
                await self._store_result(taken, message, again_in=_UNREADABLE_RETRY_S)
                return
            except ContentDamaged:
                emit("content.damaged", job_id=message.job_id)
                await self._store_result(taken, _after(message, "exhausted"))
                return
            if destination is None:
                await self._store_result(taken, _after(message, "gone"))
                return
            if _cancelled():
                raise asyncio.CancelledError
            receiver = receiver_name(message.app, destination.url)
            if receiver != message.receiver:  # its endpoint has another URL since, or an older release has queued it
                await self._store_result(taken, replace(message, receiver=receiver), first=True)
                return
            with delivering(message.carrier, job_id=message.job_id, host=urlsplit(destination.url).hostname or ""):
                answer, host = await self._try(taken, destination, at)
                await self._settle(taken, destination, answer, at, host)

    async def _destination(self, taken: ClaimedMessage) -> _Destination | None:
        """Return where to send the message and with which secrets, as of now; None if it is not wanted any more."""
        message = taken.message
        if message.endpoint:
            return await self._destination_of_endpoints(message)
        if not message.before and await self._deliveries.is_refused(message.job_id):
            return None
        secret = await self._apps.webhook_secret(message.app)
        return _Destination(taken.url, [secret] if secret else [])

    async def _destination_of_endpoints(self, message: OutboxMessage) -> _Destination | None:
        """Return where the message's endpoints receive it now; None if none of them is left."""
        names, now = (message.endpoint, *message.shared_with), to_ms(self._clock.now())
        found = [await self._endpoints.find(message.app, name) for name in names]
        wanted = [one for one in found if one is not None and one.state != "gone"]
        if not wanted:
            return None
        here = [one for one in wanted if one.url == wanted[0].url]
        secrets = dict.fromkeys(secret for one in here for secret in one.live_secrets(now))
        elsewhere = tuple(one.id for one in wanted if one not in here)
        return _Destination(here[0].url, list(secrets), tuple(one.id for one in here), elsewhere)

    async def _try(self, taken: ClaimedMessage, destination: _Destination, at: datetime) -> tuple[TryResult, str]:
        """Make one POST; return (its result, the host it went to)."""
        url: CheckedUrl | None = None
        try:
            url = check_url(destination.url, self._policy)
            if not destination.secrets:
                return TryResult(None, 0.0, _NO_SECRET), url.host
            headers = signed_headers(taken.message.id, at, taken.body, destination.secrets)
            headers = {**headers, **for_receiver(taken.message.carrier)}
            return await self._sender.post(url, headers, taken.body.encode(), taken.message.app), url.host
        except Refused:
            return TryResult(None, 0.0, UNREACHABLE), ""
        except Exception as error:  # noqa: BLE001  it must count as a try, or it would be repeated for ever
            report_internal_error("webhook.fault", error, job_id=taken.message.job_id)
            return TryResult(None, 0.0, _INTERNAL_ERROR), url.host if url else ""

    async def _settle(
        self, taken: ClaimedMessage, destination: _Destination, answer: TryResult, at: datetime, host: str
    ) -> None:
        message, manual = taken.message, bool(taken.message.before)
        outcome = verdict(answer.status, answer.error)
        receipt = {
            "at": iso_ms(at),
            "trigger": "manual" if manual else "scheduled",
            "status_code": answer.status,
            "seconds": answer.seconds,
            "error": _error(outcome, answer),
            "response_excerpt": answer.excerpt,
        }
        tried = message if manual else replace(message, tries=message.tries + 1)
        fields = {"job_id": message.job_id, "app": message.app, "host": host, "attempts": tried.tries}
        lag = (self._clock.now() - datetime.fromisoformat(message.created_at)).total_seconds()
        result = {"result": outcome.value, "http_status": answer.status, "seconds": answer.seconds, "lag_seconds": lag}
        emit("webhook.tried", **fields, **result)
        if outcome is TryVerdict.DELIVERED:
            after, wait = self._ended(tried, "delivered", destination)
            await self._store_result(taken, after, again_in=wait, result="ok", receipt=receipt, to=destination)
            if shows_answer(taken.body):  # the app has it: what is not to be stored is erased soon
                await schedule_erasure(self._redis, self._clock, [message.job_id])
        elif outcome is TryVerdict.GONE and await self._stop_target(message, destination):
            emit("webhook.gone", **fields)
            after, wait = self._ended(tried, "gone", destination)
            await self._store_result(taken, after, again_in=wait, result="gone", receipt=receipt)
        else:
            after, wait = self._failed(tried, answer)
            if after.state == "exhausted" and not manual:
                emit("webhook.exhausted", status=answer.status, **fields)
                after, wait = self._ended(tried, "exhausted", destination)
            await self._store_result(taken, after, again_in=wait, result="failed", receipt=receipt, to=destination)

    def _ended(
        self, tried: OutboxMessage, state: MessageState, destination: _Destination
    ) -> tuple[OutboxMessage, float | None]:
        """Return (the message after its last try here, 0 seconds until it is sent to those who moved away, or None)."""
        if not destination.elsewhere:
            return _after(tried, state), None
        first, *others = destination.elsewhere
        moved = replace(tried, endpoint=first, shared_with=tuple(others), tries=0, before="", planned=None)
        return replace(moved, state="pending", next_try_at=iso_ms(self._clock.now())), 0.0

    async def _stop_target(self, message: OutboxMessage, destination: _Destination) -> bool:
        """Send nothing more to a target that answered 410; return False if its app has set another address since."""
        if message.endpoint:
            gone = [await self._endpoints.mark_gone(message.app, one, destination.url) for one in destination.endpoints]
            return all(gone)
        await self._deliveries.set_refused(message.job_id)
        return True

    def _failed(self, tried: OutboxMessage, answer: TryResult) -> tuple[OutboxMessage, float | None]:
        """Return (the message after a failure, the seconds until its next try). A manual try changes nothing of it."""
        now = self._clock.now()
        if tried.before:
            if tried.before != "pending" or tried.planned is None:
                return _after(tried, tried.before), None
            wait = max(0.0, (datetime.fromisoformat(tried.planned) - now).total_seconds())
            return replace(tried, state="pending", next_try_at=tried.planned, before="", planned=None), wait
        delay = next_delay(self._delays, tried.tries, self._clock.random(), answer.retry_after)
        if delay is None:
            return _after(tried, "exhausted"), None
        return replace(tried, next_try_at=iso_ms(now + timedelta(seconds=delay))), delay

    async def _store_result(
        self,
        taken: ClaimedMessage,
        after: OutboxMessage,
        *,
        again_in: float | None = None,
        first: bool = False,
        result: Literal["ok", "gone", "failed", ""] = "",
        receipt: dict[str, Any] | None = None,
        to: _Destination | None = None,
    ) -> None:
        """Store the message and the receipt, unless the lease is lost; without Redis, retry while the lease lasts.

        Then warn of the endpoints that have failed for days, or disable them.
        """
        endpoints = to.endpoints if to is not None else ()
        recorded = await retry_store(
            lambda: self._deliveries.record_try(
                taken, after, retry_in=again_in, first=first, result=result, receipt=receipt, endpoints=endpoints
            ),
            interval=_STORE_RETRY_S,
            give_up_after=self._lease,
            now=self._clock.monotonic,
        )
        for name in recorded.warned:
            emit("webhook.endpoint_failing", app=taken.message.app, what=name)
        for name in recorded.due:
            if to is not None and await self._endpoints.disable(taken.message.app, name, to.url):
                emit("webhook.endpoint_disabled", app=taken.message.app, what=name)


def _cancelled() -> bool:
    """Return whether this task was cancelled: redis-py waits with `wait_for`, which on Python 3.11 can swallow that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _after(message: OutboxMessage, state: MessageState) -> OutboxMessage:
    """Return the message in its last state."""
    return replace(message, state=state, next_try_at=None, before="", planned=None)


def _error(outcome: TryVerdict, answer: TryResult) -> str | None:
    if outcome is TryVerdict.DELIVERED:
        return None
    if answer.error is not None:
        return answer.error
    redirect = answer.status is not None and 300 <= answer.status < 400  # noqa: PLR2004  the 3xx family
    return f"Answered {answer.status}" + ("; redirects are not followed." if redirect else ".")
