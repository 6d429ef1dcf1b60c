"""Keep the sessions of the console, and the links that begin one once.

A record names the API key that it stands for, and has a MAC. Only digests of tokens are stored, as of API keys: 192
random bits need no slow hash. Without its key, or once that is revoked, a session grants nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs.stored_fields import require_known_schema
from worker.store import keys
from worker.store.apps import ApiKey, read_key
from worker.store.connection.pool import keyring_of
from worker.store.connection.wrong_types import set_aside_wrong_types
from worker.store.errors import store_errors
from worker.store.values import read, reporting_unreadable

SESSION_SECONDS: Final = 12 * 3600
LINK_SECONDS: Final = 600
MAX_SESSIONS: Final = 200
"""Of one API key, which may log in as often as it likes: the newest."""
LINK_PREFIX: Final = "vgo_"
_SESSION_PREFIX: Final = "vgs_"
_TOKEN: Final = re.compile(r"vg[os]_[A-Za-z0-9_-]{32}")
_RANDOM_BYTES: Final = 24


class ConsoleGrant(NamedTuple):
    """What a token stands for: an API key by its id and the digest of its text, until a time in ms."""

    key_id: str
    digest: str
    expires_at: int


class LiveSession(NamedTuple):
    """A session that is not over, and its API key, which is live; the limits of its app are not read."""

    grant: ConsoleGrant
    key: ApiKey


class ConsoleAccess:
    """Sessions and one-time links in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._macs = redis, clock, keyring_of(redis).macs

    async def create_link(self, key_id: str) -> str:
        """Return a token that begins one session for this API key within LINK_SECONDS."""
        return await self._create(LINK_PREFIX, key_id, LINK_SECONDS)

    async def take_link(self, token: str) -> str | None:
        """Return the id of the key that the link stands for, and end the link; None if it is over or was used.

        Raises RecordUnreadable, also for a record that Vigil did not write.
        """
        name = _name(token)
        if name is None or not token.startswith(LINK_PREFIX):
            return None
        async with store_errors("use the link", name), self._redis.pipeline(transaction=True) as pipe:
            pipe.get(name)
            pipe.delete(name)
            raw, _ = await pipe.execute()
        grant = self._grant(name, raw)
        return grant.key_id if grant is not None else None

    async def begin_session(self, key_id: str) -> str:
        """Return the token of a new session for this API key; its oldest ends if the key has MAX_SESSIONS."""
        token, now = await self._create(_SESSION_PREFIX, key_id, SESSION_SECONDS), to_ms(self._clock.now())
        index = keys.console_sessions(key_id)
        await set_aside_wrong_types(self._redis, {index: "zset"})
        async with store_errors("count the sessions", index), self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(index, {_digest(token): now})
            pipe.zremrangebyscore(index, "-inf", now - SESSION_SECONDS * 1000)
            pipe.zrange(index, 0, -MAX_SESSIONS - 1)
            pipe.zremrangebyrank(index, 0, -MAX_SESSIONS - 1)
            pipe.expire(index, SESSION_SECONDS)
            _, _, oldest, *_ = await pipe.execute()
            if oldest:
                await self._redis.delete(*(keys.console_session(one.decode(errors="replace")) for one in oldest))
        return token

    async def session(self, token: str) -> LiveSession | None:
        """Return the live session of this token, or None.

        Raises RecordUnreadable, also for a record that Vigil did not write.
        """
        name = _session_name(token)
        if name is None:
            return None
        async with store_errors("look up the session", name):
            raw = await self._redis.get(name)
        grant = self._grant(name, raw)
        if grant is None:
            return None
        async with store_errors("look up the key", keys.api_key(grant.digest)):
            return self._live(grant, await self._redis.get(keys.api_key(grant.digest)))

    async def sessions(self, known: Mapping[str, str]) -> dict[str, LiveSession]:
        """Return those of these sessions that are live still, in one read; `known`: the digest of the key, by token."""
        names = [(token, _session_name(token) or "", keys.api_key(digest)) for token, digest in known.items()]
        async with store_errors("look up the sessions"):
            rows = await self._redis.mget([name for _, *pair in names for name in pair]) if names else []
        out = dict[str, LiveSession]()
        for number, (token, name, _) in enumerate(names):
            with reporting_unreadable():
                grant = self._grant(name, rows[2 * number])
                found = grant and self._live(grant, rows[2 * number + 1])
                if found and found.grant.digest == known[token]:
                    out[token] = found
        return out

    async def end_session(self, token: str) -> None:
        """End the session; a token that is none changes nothing."""
        name = _name(token)
        if name is not None:
            async with store_errors("end the session", name):
                await self._redis.delete(name)

    async def _create(self, prefix: str, key_id: str, seconds: int) -> str:
        token = prefix + base64.urlsafe_b64encode(self._clock.random_bytes(_RANDOM_BYTES)).decode()
        name = _name(token) or ""
        async with store_errors("keep the session", keys.API_KEYS):
            digest = await self._redis.hget(keys.API_KEYS, key_id) or b""
        grant = ConsoleGrant(key_id, digest.decode(errors="replace"), to_ms(self._clock.now()) + seconds * 1000)
        record = json.dumps(grant._asdict(), separators=(",", ":"))
        async with store_errors("keep the session", name):
            await self._redis.set(name, self._macs.attach(name, record), ex=seconds)
        return token

    def _live(self, grant: ConsoleGrant, raw: bytes | None) -> LiveSession | None:
        if raw is None:
            return None
        key = read_key(self._macs, grant.digest, raw)
        is_live = key.id == grant.key_id and key.is_live(to_ms(self._clock.now()))
        return LiveSession(grant, key) if is_live else None

    def _grant(self, name: str, raw: bytes | None) -> ConsoleGrant | None:
        if raw is None:
            return None

        def load(raw: bytes) -> ConsoleGrant:
            body = require_known_schema(json.loads(self._macs.detach(name, name, raw)))
            key_id, digest, expires_at = body["key_id"], body["digest"], body["expires_at"]
            if not isinstance(key_id, str) or not isinstance(digest, str) or type(expires_at) is not int:
                raise TypeError("not a session's record")
            return ConsoleGrant(key_id, digest, expires_at)

        grant = read(name, raw, load)
        return grant if grant.expires_at > to_ms(self._clock.now()) else None


def _session_name(token: str) -> str | None:
    return _name(token) if token.startswith(_SESSION_PREFIX) else None


def _name(token: str) -> str | None:
    """Return the key of the token's record; None for text that can't be a token, so that it costs no call to Redis."""
    if _TOKEN.fullmatch(token) is None:
        return None
    digest = _digest(token)
    return keys.console_link(digest) if token.startswith(LINK_PREFIX) else keys.console_session(digest)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
