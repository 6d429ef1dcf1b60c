"""Create, change and delete the standing webhook endpoints of apps. Secrets are stored sealed and shown once.

`vigil:hears:<app>` is updated in the same transaction: commits read it to know whether any endpoint wants an event.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

from arq.connections import ArqRedis
from redis.exceptions import WatchError

from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.jobs.errors import ContentDamaged, ContentNotSealed, RecordUnreadable, Refused
from worker.jobs.spec import PayloadKind
from worker.jobs.stored_fields import StoredFields, dump_fields, load_fields, require_known_schema
from worker.store import channels, keys
from worker.store.audit.record_notes import BY_VIGIL, RecordNotes
from worker.store.connection.pool import keyring_of
from worker.store.envelope import MasterKeyring
from worker.store.errors import store_errors
from worker.store.values import needs_newer_release, read, report_unreadable
from worker.store.webhooks.failing_endpoints import FailingEndpoint, read_failing

_NOT_FOUND: Final = "webhook_endpoint_not_found"
State = Literal["active", "paused", "disabled", "gone"]
"""disabled: paused by Vigil, after days in which it acknowledged nothing."""
MAX_ENDPOINTS: Final = 50
SECRET_OVERLAP_MS: Final = 24 * 3600 * 1000
"""How long the previous secret still signs after a rotation."""


@dataclass(frozen=True, slots=True)
class Secret(StoredFields):
    """A signing secret; `until` in ms since 1970, 0 = until it is rotated."""

    text: str = field(repr=False)
    until: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint(StoredFields):
    """A URL that receives events of all jobs of an app. `secrets`: the newest first, at most two."""

    id: str
    app: str
    url: str
    events: tuple[str, ...]
    payload: PayloadKind
    description: str
    state: State
    created_at: int
    secrets: tuple[Secret, ...] = field(repr=False)

    def live_secrets(self, now_ms: int) -> list[str]:
        """Return the secrets that sign now."""
        return [one.text for one in self.secrets if not one.until or one.until > now_ms]


class Listening(NamedTuple):
    """The endpoints of an app, oldest first, and the ids of those that only a newer release can read."""

    known: list[Endpoint]
    newer: list[str]


Change = Callable[[Endpoint], Endpoint | None]


class Endpoints:
    """The endpoints in Redis, by app."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._keyring = redis, clock, keyring_of(redis)
        self._notes = RecordNotes(redis, clock)

    async def of_app(self, app: str) -> list[Endpoint]:
        """Return all readable endpoints of the app, oldest first. Raises KeyMissing."""
        async with store_errors("list endpoints", keys.endpoints(app)):
            rows = await self._redis.hgetall(keys.endpoints(app))
        return sorted(self._load_all(app, rows).values(), key=lambda one: one.id)

    async def listening(self, app: str) -> Listening:
        """Return the endpoints of the app, also which of them only a newer release can read. Raises KeyMissing."""
        async with store_errors("list endpoints", keys.endpoints(app)):
            rows = await self._redis.hgetall(keys.endpoints(app))
        known = self._load_all(app, rows)
        others = {name: raw for field, raw in rows.items() if (name := field.decode(errors="replace")) not in known}
        newer = [name for name, raw in others.items() if self._is_newer(app, name, raw)]
        return Listening(sorted(known.values(), key=lambda one: one.id), sorted(newer))

    async def find(self, app: str, endpoint_id: str) -> Endpoint | None:
        """Return the endpoint, or None when the app has no such one."""
        async with store_errors("look up an endpoint", keys.endpoints(app)):
            raw = await self._redis.hget(keys.endpoints(app), endpoint_id)
        return self._load(app, endpoint_id, raw) if raw else None

    async def create(
        self,
        app: str,
        *,
        url: str,
        events: tuple[str, ...],
        payload: PayloadKind,
        description: str,
        secret: str,
        by: str = BY_VIGIL,
    ) -> Endpoint:
        """Create an endpoint, which gets the events of every commit from now on. Raises Refused at the limit."""
        now = to_ms(self._clock.now())
        name = ids.new_id("we", now, self._clock.random_bytes(ids.RANDOM_BYTES))
        made = Endpoint(name, app, url, events, payload, description, "active", now, (Secret(secret),))

        def add(endpoints: dict[str, Endpoint]) -> dict[str, Endpoint]:
            if len(endpoints) >= MAX_ENDPOINTS:
                raise Refused(
                    "too_many_endpoints", f"An app has at most {MAX_ENDPOINTS} webhook endpoints; delete one."
                )
            return {**endpoints, made.id: made}

        await self._edit(app, add, by)
        return made

    async def change(self, app: str, endpoint_id: str, change: Change, by: str = BY_VIGIL) -> Endpoint:
        """Change an endpoint and return it; `change` returns None to delete it.

        Raises Refused for an unknown one, RecordUnreadable for one that can't be read here.
        """
        changed: list[Endpoint] = []

        def apply(endpoints: dict[str, Endpoint]) -> dict[str, Endpoint]:
            if endpoint_id not in endpoints:
                raise Refused(_NOT_FOUND, "There is no such webhook endpoint.", 404)
            after = change(endpoints[endpoint_id])
            changed[:] = [after or endpoints[endpoint_id]]
            others = {name: one for name, one in endpoints.items() if name != endpoint_id}
            return {**others, endpoint_id: after} if after is not None else others

        try:
            await self._edit(app, apply, by)
        except Refused as error:
            if error.code == _NOT_FOUND:
                await self.find(app, endpoint_id)
            raise
        return changed[0]

    async def rotate(self, app: str, endpoint_id: str, secret: str, by: str = BY_VIGIL) -> Endpoint:
        """Give the endpoint a new secret; the previous one signs for another day, older ones no more."""
        until = to_ms(self._clock.now()) + SECRET_OVERLAP_MS

        def add_secret(one: Endpoint) -> Endpoint:
            return replace(one, secrets=(Secret(secret), replace(one.secrets[0], until=until)))

        return await self.change(app, endpoint_id, add_secret, by)

    async def mark_gone(self, app: str, endpoint_id: str, url: str) -> bool:
        """Stop sending to an endpoint that answered 410 at this URL, until its app makes it active again.

        Return False when the endpoint has another URL by now.
        """

        def set_gone(one: Endpoint) -> Endpoint:
            return replace(one, state="gone") if one.url == url else one

        with contextlib.suppress(Refused):  # deleted in the meantime
            return (await self.change(app, endpoint_id, set_gone)).state == "gone"
        return True

    async def disable(self, app: str, endpoint_id: str, url: str) -> bool:
        """Stop sending to an endpoint that has only failed at this URL; return whether it was active until now.

        What it misses waits, as if it were paused, until its app makes it active again.
        """
        stopped: list[bool] = []

        def set_disabled(one: Endpoint) -> Endpoint:
            stopped[:] = [one.url == url and one.state == "active"]
            return replace(one, state="disabled") if stopped[0] else one

        with contextlib.suppress(Refused):  # deleted in the meantime
            await self.change(app, endpoint_id, set_disabled)
        return stopped == [True]

    async def failing(self, endpoints: Sequence[Endpoint]) -> dict[str, FailingEndpoint]:
        """Return since when those of these endpoints fail that do."""
        return await read_failing(self._redis, [one.id for one in endpoints])

    async def _edit(self, app: str, edit: Callable[[dict[str, Endpoint]], dict[str, Endpoint]], by: str) -> None:
        """Change the app's endpoints in one transaction with the keys that commits and the sending workers read."""
        name = keys.endpoints(app)
        async with store_errors("change an endpoint", name):
            while True:
                rows = await self._redis.hgetall(name)
                before = self._load_all(app, rows)
                after = edit(before)
                await self._note(app, before, after, by)  # first: a crash after it plants nothing
                async with self._redis.pipeline() as pipe:
                    await pipe.watch(name)
                    if await pipe.hgetall(name) != rows:
                        continue
                    pipe.multi()
                    _write(pipe, self._keyring, app, before, after, all_known=len(before) == len(rows))
                    with contextlib.suppress(WatchError):
                        await pipe.execute()
                        return

    async def _note(self, app: str, before: dict[str, Endpoint], after: dict[str, Endpoint], by: str) -> None:
        """Record in the audit trail which endpoints are written and deleted."""
        for gone in before.keys() - after.keys():
            await self._notes.deleted("webhook_endpoint", gone, app, by=by)
        for one in after.values():
            if before.get(one.id) != one:
                await self._notes.written("webhook_endpoint", one.id, app, endpoint_content(one), by=by)

    def _load_all(self, app: str, rows: dict[bytes, bytes]) -> dict[str, Endpoint]:
        """Decode the readable endpoints; the others stay as they are."""
        out: dict[str, Endpoint] = {}
        for name, raw in rows.items():
            try:
                out[name.decode(errors="replace")] = self._load(app, name.decode(errors="replace"), raw)
            except RecordUnreadable as error:
                report_unreadable(error)
        return out

    def _is_newer(self, app: str, endpoint_id: str, raw: bytes) -> bool:
        return needs_newer_release(keys.endpoints(app), raw, lambda raw: self._load(app, endpoint_id, raw))

    def _load(self, app: str, endpoint_id: str, raw: bytes) -> Endpoint:
        try:
            return read(keys.endpoints(app), raw, lambda raw: self._opened(app, endpoint_id, raw))
        except ContentNotSealed:
            raise RecordUnreadable(keys.endpoints(app), "no_mac") from None
        except ContentDamaged:
            raise RecordUnreadable(keys.endpoints(app), "wrong_shape") from None

    def _opened(self, app: str, endpoint_id: str, raw: bytes) -> Endpoint:
        body = self._keyring.unseal_named(endpoint_name(app, endpoint_id), raw)
        require_known_schema(body)  # before anything else: its secrets may have another form
        secrets = tuple(load_fields(Secret, one) for one in body["secrets"])
        one = load_fields(Endpoint, body, events=tuple(body["events"]), secrets=secrets)
        texts = (one.url, one.payload, one.description, *one.events, *(secret.text for secret in secrets))
        if one.id != endpoint_id or one.app != app or not secrets or not all(isinstance(text, str) for text in texts):
            raise ValueError("not this endpoint")
        return one


def endpoint_content(one: Endpoint) -> dict[str, Any]:
    """Return an endpoint as it is stored."""
    return dump_fields(one)


def endpoint_name(app: str, endpoint_id: str) -> str:
    """Return the name under which an endpoint is sealed."""
    return f"endpoint:{app}:{endpoint_id}"


def _write(
    pipe: Any,
    keyring: MasterKeyring,
    app: str,
    before: dict[str, Endpoint],
    after: dict[str, Endpoint],
    *,
    all_known: bool,
) -> None:
    """Add the commands that write what has changed; `all_known`: the app has no endpoint that can't be read here."""
    name = keys.endpoints(app)
    for gone in before.keys() - after.keys():
        pipe.hdel(name, gone)
    for one in after.values():
        if before.get(one.id) != one:
            pipe.hset(name, one.id, keyring.seal_named(endpoint_name(app, one.id), endpoint_content(one)))
    wanted = sorted({event for one in after.values() if one.state != "gone" for event in one.events})
    if all_known:  # else nobody knows which events the others want: they keep theirs
        pipe.delete(keys.endpoint_events(app))
    if wanted:
        pipe.sadd(keys.endpoint_events(app), *wanted)
    for endpoint_id in before.keys() | after.keys():
        old, new = before.get(endpoint_id), after.get(endpoint_id)
        if new is None or (old is not None and (new.url != old.url or (new.state == "active" != old.state))):
            pipe.hdel(keys.FAILING_ENDPOINTS, endpoint_id)  # it starts afresh
        if new is not None and new.state in ("paused", "disabled"):
            pipe.sadd(keys.PAUSED_TARGETS, endpoint_id)
        else:
            pipe.srem(keys.PAUSED_TARGETS, endpoint_id)
            if old != new:
                pipe.zadd(keys.TARGETS, {endpoint_id: 0}, lt=True)  # its waiting messages are due again
    pipe.publish(channels.OUTBOX_FILLED, "1")
