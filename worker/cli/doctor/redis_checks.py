"""What `vigil doctor` says of Redis: whether it keeps what it is given, who may come in, what time it has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from worker.audit.chain import stream_id
from worker.audit.seals import BadSeal
from worker.cli.doctor.check import DoctorCheck, State, skew
from worker.cli.doctor.store_checks import store_check
from worker.cli.processes import with_redis
from worker.clock import Clock
from worker.jobs.errors import StoreUnavailable, UnsafeStore
from worker.redis_address import Address, parse
from worker.settings import Settings
from worker.store.admission.model_access import known_access
from worker.store.audit.seals import Seals
from worker.store.audit.trail import Trail
from worker.store.connection.command_rights import advice, missing_rules, user_of
from worker.store.connection.durability import check_durability, describe_durability
from worker.store.connection.inspection import ServerInfo, inspect_server
from worker.store.connection.pool import Redis, connect
from worker.store.connection.replay_check import assess_replay
from worker.store.connection.required_commands import REQUIRED
from worker.store.errors import store_errors
from worker.store.stats import worker_registry

_OLDEST: Final = (7, 2)
_LATE_ROUNDS: Final = 6
_FULL_WARNING, _FULL_PROBLEM = 0.75, 0.9
_USERS: Final = "use the users of ops/users.acl (`ops/secrets.sh` makes them)"


async def redis_checks(settings: Settings) -> AsyncIterator[DoctorCheck]:
    """Everything that Redis can tell."""
    kind = "external (VIGIL_REDIS_URL)" if settings.redis_url else f"embedded, data in {settings.data_dir}"
    fix = "start it, or correct VIGIL_REDIS_URL" if settings.redis_url else f"see {settings.data_dir / 'valkey.log'}"
    try:
        async with with_redis(settings) as ours:
            url = ours.redis_url or ""
            redis = connect(url, max_connections=2, retries=1)
            try:
                async for check in _of(redis, url, kind, settings):
                    yield check
            finally:
                await redis.aclose()
    except (StoreUnavailable, UnsafeStore) as error:
        yield DoctorCheck("redis", "problem", f"{kind}: {error}", fix)
    except OSError as error:
        yield DoctorCheck("redis", "problem", f"{kind}: {error.strerror or type(error).__name__}", fix)


async def _of(redis: Redis, url: str, kind: str, settings: Settings) -> AsyncIterator[DoctorCheck]:
    yield await _commands(redis)
    said = await check_durability(redis, allow_eviction=True)
    how = await inspect_server(redis, url)
    yield _server(how, said["version"], kind)
    yield _persistence(said, how)
    yield await _restart(redis, url, settings)
    yield await store_check(redis, settings)
    yield _eviction(said, settings)
    yield _memory(how)
    address = parse(url)
    yield _door(how, address)
    yield _rights(how, address)
    yield _tls(address)
    clock = Clock()
    before = clock.now().timestamp()
    async with store_errors("tell the time"):
        seconds, micros = await redis.time()
    after = clock.now().timestamp()
    yield skew("clock", "Redis", seconds + micros / 1e6 - (before + after) / 2)
    yield await _workers(redis, clock)
    yield await _access(redis)
    yield await _sealed(redis, clock, settings)


async def _commands(redis: Redis) -> DoctorCheck:
    """The user of this address may be the API's or the worker's: enough for one of them is enough."""
    lacking = {role: await missing_rules(redis, role) for role in REQUIRED}
    able = [role for role, rules in lacking.items() if not rules]
    if able:
        return DoctorCheck("commands", "ok", f"this user may do all that {' and '.join(able)} need")
    rules = min(lacking.values(), key=len)
    return DoctorCheck("commands", "problem", advice(await user_of(redis), rules), _USERS)


def _server(how: ServerInfo, version: str, kind: str) -> DoctorCheck:
    name = f"{kind}; {'Valkey' if how.valkey else 'Redis'} {version}"
    if how.loading:
        return DoctorCheck("redis", "problem", f"{name}, still reading its data", "wait until it has read them")
    if not how.valkey and how.version < _OLDEST:
        return DoctorCheck(
            "redis", "warning", f"{name} is old: Vigil is tested on Valkey 9", "take Valkey 8 or Redis 7.2"
        )
    return DoctorCheck("redis", "ok", name)


def _persistence(said: dict[str, str], how: ServerInfo) -> DoctorCheck:
    sentence = describe_durability(said)
    if not how.last_write_ok:
        fix = "look at its disk and its log now; see ops/runbook/RedisPersistence.md"
        return DoctorCheck("persistence", "problem", "Redis could not write to its disk the last time it tried.", fix)
    if said["appendonly"] != "yes":
        return DoctorCheck("persistence", "problem", sentence, "set appendonly yes and appendfsync always")
    if said["appendfsync"] == "always":
        return DoctorCheck("persistence", "ok", sentence)
    if said["appendfsync"] == "unknown":
        fix = "ask as a user that may `CONFIG GET`, such as worker of ops/users.acl, or ask whoever runs it"
        return DoctorCheck("persistence", "warning", sentence, fix)
    return DoctorCheck("persistence", "warning", sentence, "set appendfsync always")


async def _restart(redis: Redis, url: str, settings: Settings) -> DoctorCheck:
    found = await assess_replay(redis, url)
    if found.verdict == "kept":
        return DoctorCheck("restart", "warning" if found.fix else "ok", found.detail, found.fix or None)
    return DoctorCheck("restart", "warning" if settings.allow_lossy_restart else "problem", found.detail, found.fix)


def _eviction(said: dict[str, str], settings: Settings) -> DoctorCheck:
    policy = said["maxmemory_policy"]
    if policy == "noeviction":
        return DoctorCheck("eviction", "ok", "noeviction: accepted jobs are never dropped for memory")
    if policy == "unknown":
        return DoctorCheck(
            "eviction", "warning", "the eviction policy can't be read here", "make sure that it is noeviction"
        )
    state: State = "warning" if settings.allow_eviction else "problem"
    return DoctorCheck(
        "eviction", state, f"maxmemory-policy is {policy}: accepted jobs could vanish", "set it to noeviction"
    )


def _memory(how: ServerInfo) -> DoctorCheck:
    used = f"{how.used_memory / 2**20:.0f} MiB used"
    if not how.maxmemory:
        return DoctorCheck("memory", "ok", f"{used}; no maxmemory: the machine's own is the limit")
    share = how.used_memory / how.maxmemory
    said = f"{used}, {share:.0%} of maxmemory"
    if share < _FULL_WARNING:
        return DoctorCheck("memory", "ok", said)
    state: State = "warning" if share < _FULL_PROBLEM else "problem"
    return DoctorCheck(
        "memory", state, f"{said}; when it is full, submits are refused", "see ops/runbook/RedisMemory.md"
    )


def _door(how: ServerInfo, address: Address) -> DoctorCheck:
    if address.scheme == "unix":
        return DoctorCheck("door", "ok", "a socket of this machine; its folder says who may come in")
    match how.admits_anonymous:
        case None:
            return DoctorCheck("door", "ok", "whether others get in without a name was not tried")
        case False:
            return DoctorCheck("door", "ok", "nobody gets in without a name and a password")
        case True:
            state: State = "warning" if address.local else "problem"
            said = "the default user is on and has no password: whatever reaches Redis may read and change every job"
            return DoctorCheck("door", state, said, _USERS)


def _rights(how: ServerInfo, address: Address) -> DoctorCheck:
    me = f"we are {how.user!r}" if how.user else "who we are can't be asked"
    if not how.is_admin:
        return DoctorCheck("rights", "ok", f"{me}, and may not empty, stop or set up the server")
    if address.scheme == "unix":
        return DoctorCheck("rights", "ok", f"{me}; it is our own server")
    return DoctorCheck("rights", "warning", f"{me}, and may do everything: also empty and stop the server", _USERS)


def _tls(address: Address) -> DoctorCheck:
    if address.scheme == "rediss":
        return DoctorCheck("tls", "ok", "the way to Redis is encrypted")
    if address.scheme == "redis+sentinel":
        if address.local:
            return DoctorCheck("tls", "ok", "the sentinels are on this machine")
        return DoctorCheck("tls", "warning", "the way to Redis is not encrypted", "keep it in a network of its own")
    if address.local:
        return DoctorCheck("tls", "ok", "Redis is on this machine: nothing crosses a network")
    return DoctorCheck(
        "tls", "warning", "passwords and jobs cross the network as they are", "rediss://, or a network of its own"
    )


async def _workers(redis: Redis, clock: Clock) -> DoctorCheck:
    alive = await worker_registry.workers(redis, clock)
    draining = sum(bool(one.get("draining")) for one in alive)
    if len(alive) > draining:
        more = f", {draining} of them draining" if draining else ""
        return DoctorCheck("workers", "ok", f"{len(alive)} with a heartbeat within a minute{more}")
    said = "all workers drain" if alive else "no worker shows a heartbeat"
    return DoctorCheck("workers", "warning", f"{said}: jobs are accepted and wait", "start `vigil worker`")


async def _sealed(redis: Redis, clock: Clock, settings: Settings) -> DoctorCheck:
    fix = "start a worker that has the key of `vigil audit key`; `vigil audit verify` says more"
    try:
        last = await Seals(redis).last()
    except BadSeal:
        return DoctorCheck(
            "audit trail", "problem", "what stands as its last checkpoint is none", "`vigil audit verify`"
        )
    waiting = await Trail(redis, clock).page(f"({last.last}" if last else "-", count=1)
    said = f"the last checkpoint is number {last.number}, of {last.body['at']}" if last else "no checkpoint"
    if not waiting:
        return DoctorCheck("audit trail", "ok", f"{said}; nothing waits for one")
    age = clock.now().timestamp() - stream_id(waiting[0].id)[0] / 1000
    if age <= _LATE_ROUNDS * settings.audit_seal_seconds:
        return DoctorCheck("audit trail", "ok", f"{said}; the next one is due")
    return DoctorCheck("audit trail", "warning", f"{said}; records have waited {age:,.0f} s for the next one", fix)


async def _access(redis: Redis) -> DoctorCheck:
    rows = await known_access(redis)
    if not rows:
        return DoctorCheck("access", "warning", "which models may be called was never asked", "`vigil probe`")
    not_ok = [f"{model} {row.status}" for model, row in sorted(rows.items()) if row.status != "ok"]
    granted = len(rows) - len(not_ok)
    if not not_ok:
        return DoctorCheck("access", "ok", f"all {granted} models may be called, as of the last probe")
    said = f"{granted} of {len(rows)} models may be called; {', '.join(not_ok)}"
    return DoctorCheck("access", "warning", said, "`vigil probe` tells the next step for each")
