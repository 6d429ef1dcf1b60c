"""Webhooks out: takes due messages by lease and sends them, many at once, each target at its own pace.

At least once: a try whose receipt was not kept is made again by whoever takes the message next, under the same id. Of
a job one message at a time goes to a target, in the order of its events; one that failed waits for its retry and no
longer holds up those behind it. A dead or slow target has its own queue and a few places, so it delays nobody; an app
with many of them has no more places than it leaves free.
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
from worker.settings import Settings
from worker.store import channels
from worker.store.admission.quarantine import QuarantineLimits
from worker.store.apps import Apps
from worker.store.errors import UNAVAILABLE_ERRORS
from worker.store.jobs.repository import Jobs, retention_of
from worker.store.values import report_unreadable
from worker.store.webhooks.delivery_queue import ClaimedMessage, DeliveryQueue
from worker.store.webhooks.endpoints import Endpoints
from worker.store.webhooks.outbox import OutboxMessage, State, iso_time
from worker.tasks.delivery.outbox_relay import OutboxRelay
from worker.tasks.rounds import loop_pass
from worker.telemetry.events import emit
from worker.telemetry.internal_errors import broke
from worker.telemetry.tracing import delivering, for_receiver
from worker.webhooks.guard import AddressPolicy, CheckedUrl, check_url
from worker.webhooks.resolver import SystemResolver
from worker.webhooks.schedule import TryVerdict, max_duration, next_delay, verdict
from worker.webhooks.sender import TOTAL_TIMEOUT_S, UNREACHABLE, TryResult, WebhookSender
from worker.webhooks.signing import signed_headers

MOST_AT_ONCE: Final = 256
PER_TARGET: Final = 8
FAILING_AFTER: Final = 5
"""Failures in a row after which a target is given one try at a time, so that many dead ones leave room."""
_IDLE: Final = 1.0
_LOCKED: Final = 60.0
_AWAY: Final = 0.5
_GRACE: Final = 2.0
_FAULT: Final = "A fault of ours; the message will be tried again."
_NO_SECRET: Final = "The app has no secret to sign with."  # noqa: S105  a sentence


class _Destination(NamedTuple):
    """Where a message goes now, and with which secrets it is signed."""

    url: str
    secrets: Sequence[str]


class Dispatcher:
    """Sends until cancelled."""

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
            per_target=PER_TARGET,
            keep=settings.result_ttl,
            max_pending=round(max_duration(self._delays)),
        )
        shutting = QuarantineLimits(settings.quarantine_blocks, settings.quarantine_window_seconds)
        jobs = Jobs(redis, clock, retention_of(settings), shutting)
        self._carrier = OutboxRelay(redis, jobs, self._deliveries, self._endpoints, clock)
        self._redis, self._wake = redis, asyncio.Event()
        self._flights: dict[asyncio.Task[None], ClaimedMessage] = {}

    async def run(self) -> None:
        """Sends until cancelled; then what is on its way gets a moment, and the rest is given back."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listening(), name="webhook ear")
                group.create_task(self._holding(), name="webhook leases")
                await self._loop()
        finally:
            await self._end()

    async def _listening(self) -> None:
        """Hears that something was written; what is missed is found a second later."""
        while not _cancelled():
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(channels.OUTBOX_FILLED)
                    self._wake.set()  # something may have been said while we were deaf
                    while not _cancelled():
                        if await pubsub.get_message(timeout=5.0) is not None:
                            self._wake.set()
            except UNAVAILABLE_ERRORS:
                await asyncio.sleep(_AWAY)

    async def _loop(self) -> None:
        while not _cancelled():
            self._wake.clear()
            more, pause = False, _AWAY
            with contextlib.suppress(StoreUnavailable):
                with loop_pass("messages to targets"):
                    more = await self._carrier.carry()
                with loop_pass("messages to send"):
                    pause = await self._take()
            if more:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
        raise asyncio.CancelledError

    async def _take(self) -> float:
        """Begins to send what is due and has room; gives the seconds until it is worth looking again."""
        room = MOST_AT_ONCE - len(self._flights)
        if room <= 0:
            return _IDLE  # the end of a flight wakes us
        under_way = Counter(one.message.app for one in self._flights.values())
        due, taken = await self._deliveries.claim_due(room, self._lease, FAILING_AFTER, under_way)
        for one in taken:
            flight = asyncio.create_task(self._deliver(one), name=f"webhook {one.message.id}")
            self._flights[flight] = one
            flight.add_done_callback(self._landed)
        return min(_IDLE, max(0.002, due)) if due >= 0 else _IDLE

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.pop(flight, None)
        fault = None if flight.cancelled() else flight.exception()
        if fault is not None:
            broke("webhook.fault", fault)
        self._wake.set()

    async def _holding(self) -> None:
        """Keeps the leases of what is on its way."""
        while not _cancelled():
            await asyncio.sleep(self._lease / 3)
            with contextlib.suppress(StoreUnavailable), loop_pass("leases of messages"):
                await self._deliveries.extend_lease(list(self._flights.values()), self._lease)

    async def _end(self) -> None:
        if self._flights:
            await asyncio.wait(self._flights, timeout=_GRACE)
        left = dict(self._flights)
        for flight in left:
            flight.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        with contextlib.suppress(StoreUnavailable):
            await self._deliveries.extend_lease(list(left.values()), 0)
        self._resolver.close()

    async def _deliver(self, taken: ClaimedMessage) -> None:
        """One try and its receipt. When Redis is away the lease runs out, and the message is sent again."""
        message, at = taken.message, self._clock.now()
        with contextlib.suppress(StoreUnavailable):
            try:
                if taken.unreadable is not None:
                    raise taken.unreadable
                hook = await self._hook(taken)
            except KeyMissing as missing:
                emit("encryption.key_missing", job_id=message.job_id, code=missing.kid)
                await self._keep(taken, message, again_in=_LOCKED)
                return
            except RecordUnreadable as error:  # the endpoint or the app's record: somebody may mend it
                report_unreadable(error)
                await self._keep(taken, message, again_in=_LOCKED)
                return
            except ContentDamaged:
                emit("content.damaged", job_id=message.job_id)
                await self._keep(taken, _after(message, "exhausted"))
                return
            if hook is None:
                await self._keep(taken, _after(message, "gone"))
                return
            if _cancelled():
                raise asyncio.CancelledError
            with delivering(message.carrier, job_id=message.job_id, host=urlsplit(hook.url).hostname or ""):
                answer, host = await self._try(taken, hook, at)
                await self._settle(taken, hook, answer, at, host)

    async def _hook(self, taken: ClaimedMessage) -> _Destination | None:
        """Where to and with which secrets, as of now; None when nobody wants it any more."""
        message = taken.message
        if message.endpoint:
            endpoint = await self._endpoints.find(message.app, message.endpoint)
            if endpoint is None or endpoint.state == "gone":
                return None
            return _Destination(endpoint.url, endpoint.live_secrets(to_ms(self._clock.now())))
        if not message.before and await self._deliveries.is_refused(message.job_id):
            return None
        secret = await self._apps.webhook_secret(message.app)
        return _Destination(taken.url, [secret] if secret else [])

    async def _try(self, taken: ClaimedMessage, hook: _Destination, at: datetime) -> tuple[TryResult, str]:
        """(what came of one POST, the host it went to)."""
        url: CheckedUrl | None = None
        try:
            url = check_url(hook.url, self._policy)
            if not hook.secrets:
                return TryResult(None, 0.0, _NO_SECRET), url.host
            headers = signed_headers(taken.message.id, at, taken.body, hook.secrets)
            headers = {**headers, **for_receiver(taken.message.carrier)}
            return await self._sender.post(url, headers, taken.body.encode()), url.host
        except Refused:
            return TryResult(None, 0.0, UNREACHABLE), ""
        except Exception as error:  # noqa: BLE001  it must count as a try, or it would be made for ever
            broke("webhook.fault", error, job_id=taken.message.job_id)
            return TryResult(None, 0.0, _FAULT), url.host if url else ""

    async def _settle(
        self, taken: ClaimedMessage, hook: _Destination, answer: TryResult, at: datetime, host: str
    ) -> None:
        message, by_hand = taken.message, bool(taken.message.before)
        came = verdict(answer.status, answer.error)
        receipt = {
            "at": iso_time(at),
            "trigger": "manual" if by_hand else "scheduled",
            "status_code": answer.status,
            "seconds": answer.seconds,
            "error": _error(came, answer),
            "response_excerpt": answer.excerpt,
        }
        tried = message if by_hand else replace(message, tries=message.tries + 1)
        about = {"job_id": message.job_id, "app": message.app, "host": host, "attempts": tried.tries}
        lag = (self._clock.now() - datetime.fromisoformat(message.created_at)).total_seconds()
        how = {"result": came.value, "http_status": answer.status, "seconds": answer.seconds, "lag_seconds": lag}
        emit("webhook.tried", **about, **how)
        if came is TryVerdict.DELIVERED:
            await self._keep(taken, _after(tried, "delivered"), went="ok", receipt=receipt)
        elif came is TryVerdict.GONE and await self._stopped(message, hook):
            emit("webhook.gone", **about)
            await self._keep(taken, _after(tried, "gone"), went="ok", receipt=receipt)
        else:
            after, wait = self._failed(tried, answer)
            if after.state == "exhausted" and not by_hand:
                emit("webhook.exhausted", status=answer.status, **about)
            await self._keep(taken, after, again_in=wait, went="failed", receipt=receipt)

    async def _stopped(self, message: OutboxMessage, hook: _Destination) -> bool:
        """Nothing more goes to whoever answered 410; False when its app has named another address since."""
        if message.endpoint:
            return await self._endpoints.mark_gone(message.app, message.endpoint, hook.url)
        await self._deliveries.set_refused(message.job_id)
        return True

    def _failed(self, tried: OutboxMessage, answer: TryResult) -> tuple[OutboxMessage, float | None]:
        """(the message after a failure, the seconds until its next try). By hand, it is what it was before."""
        now = self._clock.now()
        if tried.before:
            if tried.before != "pending" or tried.planned is None:
                return _after(tried, tried.before), None
            wait = max(0.0, (datetime.fromisoformat(tried.planned) - now).total_seconds())
            return replace(tried, state="pending", next_try_at=tried.planned, before="", planned=None), wait
        delay = next_delay(self._delays, tried.tries, self._clock.chance(), answer.retry_after)
        if delay is None:
            return _after(tried, "exhausted"), None
        return replace(tried, next_try_at=iso_time(now + timedelta(seconds=delay))), delay

    async def _keep(
        self,
        taken: ClaimedMessage,
        after: OutboxMessage,
        *,
        again_in: float | None = None,
        went: Literal["ok", "failed", ""] = "",
        receipt: dict[str, Any] | None = None,
    ) -> None:
        """The receipt is kept, or the lease is lost; while Redis is away it tries on as long as the lease lasts."""
        until = self._clock.monotonic() + self._lease
        while True:
            try:
                await self._deliveries.record_try(taken, after, retry_in=again_in, result=went, receipt=receipt)
            except StoreUnavailable:
                if self._clock.monotonic() > until:
                    raise
                await asyncio.sleep(_AWAY)
            else:
                return


def _cancelled() -> bool:
    """True once this task was cancelled: redis-py waits with `wait_for`, which on Python 3.11 can swallow that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _after(message: OutboxMessage, state: State) -> OutboxMessage:
    """The message as it stays."""
    return replace(message, state=state, next_try_at=None, before="", planned=None)


def _error(came: TryVerdict, answer: TryResult) -> str | None:
    if came is TryVerdict.DELIVERED:
        return None
    if answer.error is not None:
        return answer.error
    redirect = answer.status is not None and 300 <= answer.status < 400  # noqa: PLR2004  the 3xx family
    return f"Answered {answer.status}" + ("; redirects are not followed." if redirect else ".")
