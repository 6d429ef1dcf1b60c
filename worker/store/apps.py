"""Manage apps and their API keys. A key is shown once; only its SHA-256 is stored, and looked up.

190 random bits need no slow hash: it would only let an attacker use up CPU.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import zlib
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from arq.connections import ArqRedis
from redis.exceptions import WatchError

from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.jobs.errors import RecordUnreadable, Refused
from worker.jobs.states import Status
from worker.store import channels, keys
from worker.store.admission import app_quota, rate_limit
from worker.store.admission.app_quota import AppQuota, QuotaUse
from worker.store.admission.rate_limit import RateLimit
from worker.store.connection.pool import keyring_of
from worker.store.errors import store_errors
from worker.store.values import count_of, read, readable, report_unreadable

SCOPES: Final = ("submit", "read", "audit", "ops")
MIN_WEIGHT, MAX_WEIGHT, MAX_RUNNING = 0.01, 1000.0, 1_000_000
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY, _CHECK = 32, 6
_APP: Final = re.compile(r"[^\s:\x00-\x1f\x7f]{1,100}")  # a colon could make one app's index another's


@dataclass(frozen=True, slots=True)
class App:
    """The limits of an app: it gets claims in proportion to its weight, and may run so many jobs at once (0 = any
    number, None = what the settings say).
    """

    name: str
    weight: float = 1.0
    max_running: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key. `revoked_at` in ms, 0 = live. `rate` and `quota` are its app's own, None = the default."""

    id: str
    app: str
    scopes: tuple[str, ...]
    created_at: int
    last4: str
    revoked_at: int = 0
    rate: RateLimit | None = None
    quota: AppQuota | None = None


def _base62(value: int, width: int) -> str:
    out = ""
    for _ in range(width):
        value, low = divmod(value, 62)
        out = _BASE62[low] + out
    return out


def new_key(random_bytes: bytes) -> str:
    """Return `vgl_`, 32 random characters, and a checksum of 6: scanners recognise a key without asking Vigil."""
    body = _base62(int.from_bytes(random_bytes, "big"), _BODY)
    return f"vgl_{body}{_base62(zlib.crc32(body.encode()), _CHECK)}"


def is_well_formed(key: str) -> bool:
    """Return False for text that can't be a key, so that junk costs no call to Redis."""
    if not key.startswith("vgl_") or len(key) != 4 + _BODY + _CHECK or not key.isascii():
        return False
    body = key[4 : 4 + _BODY]
    return key[4 + _BODY :] == _base62(zlib.crc32(body.encode()), _CHECK)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Apps:
    """The API keys and apps in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._keyring = redis, clock, keyring_of(redis)

    async def create_key(
        self, app: str, scopes: tuple[str, ...], rate: RateLimit | None = None
    ) -> tuple[ApiKey, str, str]:
        """Create a key, and its app when that is new; return (the record, the key, the app's webhook secret).

        `rate` becomes the app's own limit; None leaves the one it has. Raises Refused for a bad name or scope.
        """
        unknown = [s for s in scopes if s not in SCOPES]
        if unknown:
            raise Refused("unknown_scope", f"Unknown scope {', '.join(unknown)}; known: {', '.join(SCOPES)}.", 422)
        if _APP.fullmatch(app) is None:
            raise Refused("invalid_app", "An app's name is 1-100 characters without spaces and colons.", 422)
        now = to_ms(self._clock.now())
        key = new_key(self._clock.random_bytes(24))
        record = ApiKey(ids.new_id("key", now, self._clock.random_bytes(ids.RANDOM_BYTES)), app, scopes, now, key[-4:])
        secret = "whsec_" + base64.b64encode(self._clock.random_bytes(32)).decode()
        async with store_errors("keep the key"):
            sealed = self._keyring.seal_text(secret_name(app), secret)
            await self._redis.set(keys.app(app), json.dumps({"name": app, "webhook_secret": sealed}), nx=True)
            stored = _record(app, await self._redis.get(keys.app(app)) or b"")
            if rate is not None:
                await self._update(app, {"rate": rate_limit.dump(rate)})
            async with self._redis.pipeline() as pipe:
                pipe.set(keys.api_key(_digest(key)), _dump(record))
                pipe.hset(keys.API_KEYS, record.id, _digest(key))
                await pipe.execute()
        return record, key, self._keyring.unseal_text(secret_name(app), str(stored["webhook_secret"]))

    async def find(self, key: str) -> ApiKey | None:
        """Return the record of a key, revoked or not; None for an unknown key."""
        return await self._find(_digest(key)) if is_well_formed(key) else None

    async def find_by_id(self, key_id: str) -> ApiKey | None:
        """Return the record of the key with this id, revoked or not; None for an unknown one."""
        async with store_errors("look up the key", keys.API_KEYS):
            digest = await self._redis.hget(keys.API_KEYS, key_id)
        return await self._find(digest.decode(errors="replace")) if digest else None

    async def _find(self, digest: str) -> ApiKey | None:
        name = keys.api_key(digest)
        async with store_errors("look up the key", name):
            raw = await self._redis.get(name)
        if raw is None:
            return None
        found = read(name, raw, _load)
        try:
            async with store_errors("look up the app", keys.app(found.app)):
                app = await self._redis.get(keys.app(found.app))
            if not app:
                return found
            own = read(keys.app(found.app), app, rate_limit.load), read(keys.app(found.app), app, app_quota.load)
            return replace(found, rate=own[0], quota=own[1])
        except RecordUnreadable as error:  # then the app has the default limits
            report_unreadable(error)
            return found

    async def rate(self, app: str) -> RateLimit | None:
        """Return the app's own rate, None = the default. Raises Refused when there is no such app."""
        async with store_errors("look up the app", keys.app(app)):
            return read(keys.app(app), await self._app(app), rate_limit.load)

    async def set_rate(self, app: str, rate: RateLimit | None) -> None:
        """Set the app's own rate, or None for the default; API processes see it within three seconds."""
        async with store_errors("keep the app"):
            await self._update(app, {"rate": rate_limit.dump(rate)})

    async def quota(self, app: str) -> AppQuota | None:
        """Return the app's own quota, None = the default. Raises Refused when there is no such app."""
        async with store_errors("look up the app", keys.app(app)):
            return read(keys.app(app), await self._app(app), app_quota.load)

    async def set_quota(self, app: str, quota: AppQuota | None) -> None:
        """Set the app's own quota, or None for the default; API processes see it within three seconds."""
        async with store_errors("keep the app"):
            await self._update(app, {"quota": app_quota.dump(quota)})

    async def quota_use(self, app: str) -> QuotaUse:
        """Return what the app has waiting and stored now."""
        async with store_errors("count what the app has"), self._redis.pipeline(transaction=True) as pipe:
            for status in (Status.QUEUED, Status.SCHEDULED):
                pipe.zcard(keys.index(app, "status", status))
            pipe.hget(keys.content_sizes(app), "total")
            pipe.hlen(keys.content_sizes(app))
            queued, scheduled, held, fields = await pipe.execute()
        size = count_of((held or b"0").decode(errors="replace")) or 0
        return QuotaUse(queued + scheduled, size, max(0, fields - 1))  # one field is the total

    async def _app(self, app: str) -> bytes:
        raw: bytes | None = await self._redis.get(keys.app(app))
        if raw is None:
            raise Refused("app_not_found", f"There is no app {app}; `vigil keys create --app` makes one.", 404)
        return raw

    async def list_keys(self) -> list[ApiKey]:
        """Return every key ever created, oldest first."""
        async with store_errors("list keys"):
            digests = (await self._redis.hgetall(keys.API_KEYS)).values()
            names = [keys.api_key(digest.decode(errors="replace")) for digest in digests]
            rows = await self._redis.mget(names) if names else []
        return sorted((key for _, key in readable(zip(names, rows, strict=True), _load)), key=lambda k: k.id)

    async def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key for good; idempotent. Raises Refused when there is no such key."""
        async with store_errors("revoke the key"):
            digest = await self._redis.hget(keys.API_KEYS, key_id)
            raw = await self._redis.get(keys.api_key(digest.decode())) if digest else None
            if raw is None:
                raise Refused("key_not_found", f"There is no key {key_id}; `vigil keys list` shows them.", 404)
            name = keys.api_key(digest.decode())
            key = read(name, raw, _load)
            revoked = replace(key, revoked_at=key.revoked_at or to_ms(self._clock.now()))
            await self._redis.set(name, json.dumps({**json.loads(raw), "revoked_at": revoked.revoked_at}))
        return revoked

    async def app(self, name: str) -> App:
        """Return an app. Raises Refused when there is none of this name."""
        async with store_errors("look up the app"):
            return _app_of(_record(name, await self._app(name)))

    async def list_apps(self) -> list[App]:
        """Return every app that has ever had a key, by name."""
        names = sorted({key.app for key in await self.list_keys()})
        async with store_errors("list apps"):
            names_of_keys = [keys.app(name) for name in names]
            rows = await self._redis.mget(names_of_keys) if names_of_keys else []
        return [app for _, app in readable(zip(names_of_keys, rows, strict=True), lambda raw: _app_of(_object(raw)))]

    async def set_limits(
        self, name: str, *, weight: float | None = None, max_running: int | None = None, default_max: bool = False
    ) -> App:
        """Change the given limits, for every job that is claimed from now on; `default_max`: as the settings say.

        Raises Refused for a value out of range and for an app that does not exist.
        """
        if weight is not None and not MIN_WEIGHT <= weight <= MAX_WEIGHT:
            raise Refused("invalid_weight", f"A weight is a number from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}.", 422)
        if max_running is not None and not 0 <= max_running <= MAX_RUNNING:
            raise Refused("invalid_max_running", f"max_running is a whole number from 0 to {MAX_RUNNING}.", 422)
        given: dict[str, Any] = {"weight": weight, "max_running": max_running}
        changes = {field: value for field, value in given.items() if value is not None}
        async with store_errors("change the app"):
            record = await self._update(name, changes | ({"max_running": None} if default_max else {}))
            await self._redis.zadd(keys.RING, {name: 0}, nx=True)  # a full app has left the ring
            await self._redis.publish(channels.WAKE, "1")
        return _app_of(record)

    async def _update(self, name: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Update fields of the app's record, keeping concurrent changes of others; return the record."""
        async with self._redis.pipeline() as pipe:
            while True:
                await pipe.watch(keys.app(name))
                record = _record(name, await self._app(name)) | changes
                pipe.multi()
                pipe.set(keys.app(name), json.dumps(record))
                with contextlib.suppress(WatchError):
                    await pipe.execute()
                    return record

    async def webhook_secret(self, app: str) -> str | None:
        """Return the secret that signs the app's per-job webhooks, or None when there is no such app."""
        async with store_errors("look up the app", keys.app(app)):
            raw = await self._redis.get(keys.app(app))
        return self._keyring.unseal_text(secret_name(app), str(_record(app, raw)["webhook_secret"])) if raw else None


def secret_name(app: str) -> str:
    """Return the name under which an app's webhook secret is sealed."""
    return f"app:{app}"


def _dump(key: ApiKey) -> str:
    """Encode a key's record, without the limits: they are stored with the app."""
    return json.dumps({name: value for name, value in asdict(key).items() if name not in {"rate", "quota"}})


def _record(name: str, raw: bytes) -> dict[str, Any]:
    """Decode an app's record. Raises RecordUnreadable."""
    return read(keys.app(name), raw, _object)


def _object(raw: bytes) -> dict[str, Any]:
    body = json.loads(raw)
    if not isinstance(body, dict) or not isinstance(body["webhook_secret"], str) or not isinstance(body["name"], str):
        raise TypeError("not an app's record")
    return body


def _app_of(record: dict[str, Any]) -> App:
    return App(record["name"], record.get("weight", 1.0), record.get("max_running"))


def _load(raw: bytes) -> ApiKey:
    body = json.loads(raw)
    key = ApiKey(**{**body, "scopes": tuple(body["scopes"])})
    if not all(isinstance(text, str) for text in (key.id, key.app, *key.scopes)) or type(key.revoked_at) is not int:
        raise ValueError("not a key's record")
    return key
