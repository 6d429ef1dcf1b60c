"""Check whether a restart of Redis keeps committed transactions, as far as its users decide that.

Until Valkey 9.1.2 (valkey #3984, redis #14545) a server replays MULTI/EXEC from its append-only file as the user
`default` and drops, with only a line in its log, what that user may not do; scripts are logged as MULTI/EXEC too. So
`default` must be allowed what Vigil's users write, while nobody can log in as it. Only reads: `ACL DRYRUN` runs none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from arq.connections import ArqRedis
from redis.exceptions import ResponseError

from worker import redis_address
from worker.jobs.errors import UnsafeStore
from worker.settings import Settings
from worker.store.connection.key_tag import tag_of
from worker.store.connection.pool import connect_to
from worker.store.errors import UNAVAILABLE_ERRORS, store_errors

RULE: Final = "user default off resetpass ~* &* +@all"
"""The rule of ops/users.acl: cannot log in, may replay."""

_KEEPS_SINCE: Final = (9, 1, 2)  # Valkey, tested; no release of Redis that keeps them was available
_KEYS: Final = ("vigil:replay", "vigil:audit", "vigil:seals", "arq:replay")
_WRITES: Final = (
    *("DEL", "UNLINK", "PERSIST", "INCR", "SPOP", "ZPOPMIN", "LPOP"),
    *("SADD x", "SREM x", "HDEL x", "RPUSH x", "LPUSH x", "PFADD x", "ZREM x", "XDEL 1-1", "SET x", "PEXPIREAT 1"),
    *("HSET x 1", "HSETNX x 1", "HINCRBY x 1", "ZADD 1 x", "ZINCRBY 1 x", "LSET 0 x", "LREM 0 x", "LTRIM 0 0"),
    *("ZREMRANGEBYRANK 0 1", "ZREMRANGEBYSCORE 0 1", "XADD 1-1 x 1", "XTRIM MAXLEN 1"),
)
"""What Vigil and arq write, as the append-only file holds it, without the key."""


@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """What a restart does with committed transactions (or that this is not known), why, and how to fix it."""

    verdict: Literal["kept", "lost", "unknown"]
    detail: str
    fix: str = ""


async def assess_replay(redis: ArqRedis, url: str) -> ReplayOutcome:
    """Return the verdict on this server and its users. Raises StoreUnavailable."""
    async with store_errors("say whether a restart keeps what it holds"):
        info = await redis.info()
        if not info.get("aof_enabled"):
            return ReplayOutcome("kept", "there is no append-only file to replay")
        refused = await _refused(redis)
    if refused is None:
        refused = await _refused_without_name(url)
    if refused == "":
        return ReplayOutcome(
            "kept", "the user `default`, as whom transactions are replayed, may write what Vigil writes"
        )
    fix = f"the rule `{RULE}` (ops/secrets.sh writes it), then `ACL LOAD` as admin, before Redis is restarted"
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version") or "?")
    if name == "Valkey" and _number(version) >= _KEEPS_SINCE:
        if refused is None:
            return ReplayOutcome("kept", f"{name} {version} replays transactions whatever `default` may do")
        detail = f"{name} {version} replays them all the same, but older servers lose what `default` may not {refused}"
        return ReplayOutcome("kept", detail, fix)
    if refused is None:
        detail = (
            f"{name} {version} may lose committed jobs at its next restart: it replays transactions as the user "
            "`default`, and our user may not ask what that one may do (`ACL DRYRUN`)"
        )
        return ReplayOutcome("unknown", detail, fix)
    detail = (
        f"{name} {version} would lose committed jobs at its next restart: it replays transactions as the user "
        f"`default`, who may not {refused}"
    )
    return ReplayOutcome("lost", detail, fix)


async def check_replay(redis: ArqRedis, url: str, *, allow: bool = False) -> ReplayOutcome:
    """Return the verdict. Raises UnsafeStore unless a restart keeps what was committed, or `allow` is set."""
    found = await assess_replay(redis, url)
    if found.verdict != "kept" and not allow:
        raise UnsafeStore(f"{found.detail}. To correct it: {found.fix}. VIGIL_ALLOW_LOSSY_RESTART=1 starts anyway.")
    return found


def replay_check(redis: ArqRedis, settings: Settings) -> Callable[[], Awaitable[ReplayOutcome]]:
    """Return `check_replay` as a function to repeat: Redis may be away at start, and come back set up differently."""
    return lambda: check_replay(redis, settings.store_url, allow=settings.allow_lossy_restart)


async def _refused(redis: ArqRedis) -> str | None:
    """Return the first command that `default` may not run, "" when it may run all, None when this can't be asked."""
    try:
        if _text(await redis.execute_command("ACL WHOAMI")) == "default":
            return ""  # what it may not do is refused when it is written
    except ResponseError:
        pass  # a user without ACL WHOAMI may still have ACL DRYRUN
    return await _dry_run(redis)


async def _refused_without_name(url: str) -> str | None:
    """Ask the same as `default` itself where that user needs no password; return None where it does."""
    address = redis_address.parse(url)
    if address.through_sentinel:
        return None
    anonymous = connect_to(replace(address, username=None, password=None), max_connections=1, retries=0)
    try:
        return await _dry_run(anonymous)
    except UNAVAILABLE_ERRORS:
        return None
    finally:
        await anonymous.aclose()


async def _dry_run(redis: ArqRedis) -> str | None:
    queries = [(write, key) for write in _WRITES for key in _KEYS]
    async with redis.pipeline(transaction=False) as pipe:
        for write, key in queries:
            name, *more = write.split()
            pipe.execute_command("ACL DRYRUN", "default", name, tag_of(redis) + key, *more)
        answers = await pipe.execute(raise_on_error=False)
    for (write, key), answer in zip(queries, answers, strict=True):
        if isinstance(answer, ResponseError):
            return None  # not permitted, or a server that is too old to know the command
        if isinstance(answer, Exception):
            raise answer
        if _text(answer) != "OK":
            return f"`{write.split()[0]}` {key.partition(':')[0]}:…"
    return ""


def _text(answer: object) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
