"""The checks of `vigil doctor` for Redis: persistence, access rights, memory, clock, workers, audit trail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from worker.audit.chain import stream_id
from worker.audit.seals import BadSeal
from worker.cli.doctor.archive_check import archive_check
from worker.cli.doctor.check import DoctorCheck, State, clock_check
from worker.cli.doctor.key_checks import key_check
from worker.cli.doctor.migration_check import migration_check
from worker.cli.doctor.store_identity_check import seal_check, store_check
from worker.cli.processes import with_redis
from worker.clock import Clock
from worker.jobs.errors import StoreUnavailable, UnsafeStore
from worker.redis_address import Address, parse
from worker.settings import Settings
from worker.store.admission.app_quota import AppQuota
from worker.store.admission.model_access import known_access
from worker.store.apps import Apps
from worker.store.archive.attached import IMPATIENT, attach_archive
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

_OLDEST_TESTED: Final = (7, 2)
_LATE_SEAL_ROUNDS: Final = 6
_MEMORY_WARNING, _MEMORY_PROBLEM = 0.75, 0.9
_QUOTA_WARNING, _MAX_NAMED = 0.8, 10
_USERS_FIX: Final = "use the users of ops/users.acl (`ops/secrets.sh` makes them)"


async def redis_checks(settings: Settings) -> AsyncIterator[DoctorCheck]:
    """Yield all checks of Redis."""
    kind = "external (VIGIL_REDIS_URL)" if settings.redis_url else f"embedded, data in {settings.data_dir}"
    fix = "start it, or correct VIGIL_REDIS_URL" if settings.redis_url else f"see {settings.data_dir / 'valkey.log'}"
    try:
        async with with_redis(settings) as actual:
            url = actual.redis_url or ""
            redis = connect(url, max_connections=2, retries=1)
            attach_archive(redis, settings, IMPATIENT)
            try:
                async for check in _checks(redis, url, kind, settings):
                    yield check
            finally:
                await redis.aclose()
    except (StoreUnavailable, UnsafeStore) as error:
        yield DoctorCheck("redis", "problem", f"{kind}: {error}", fix)
    except OSError as error:
        yield DoctorCheck("redis", "problem", f"{kind}: {error.strerror or type(error).__name__}", fix)


async def _checks(redis: Redis, url: str, kind: str, settings: Settings) -> AsyncIterator[DoctorCheck]:
    yield await _commands(redis)
    config = await check_durability(redis, allow_eviction=True)
    info = await inspect_server(redis, url)
    yield _server(info, config["version"], kind)
    yield _persistence(config, info)
    yield await _restart(redis, url, settings)
    yield await store_check(redis, settings)
    yield _eviction(config, settings)
    yield _memory(info, settings)
    yield await _quotas(redis, info, settings)
    address = parse(url)
    yield _password(info, address)
    yield _rights(info, address)
    yield _tls(address)
    clock = Clock()
    before = clock.now().timestamp()
    async with store_errors("report its time"):
        seconds, micros = await redis.time()
    after = clock.now().timestamp()
    yield clock_check("clock", "Redis", seconds + micros / 1e6 - (before + after) / 2)
    yield await _workers(redis, clock)
    yield await migration_check(redis, clock)
    yield await _access(redis)
    yield await _audit_trail(redis, clock, settings)
    yield await archive_check(redis, clock, settings)
    yield await key_check(redis, clock)
    sealed = await seal_check(settings, url)
    if sealed is not None:
        yield sealed


async def _commands(redis: Redis) -> DoctorCheck:
    """Check the rights of the Redis user, which may be the API's or the worker's: one role's rights are enough."""
    lacking = {role: await missing_rules(redis, role) for role in REQUIRED}
    able = [role for role, rules in lacking.items() if not rules]
    if able:
        return DoctorCheck("commands", "ok", f"this user may run all commands that {' and '.join(able)} need")
    rules = min(lacking.values(), key=len)
    return DoctorCheck("commands", "problem", advice(await user_of(redis), rules), _USERS_FIX)


def _server(info: ServerInfo, version: str, kind: str) -> DoctorCheck:
    name = f"{kind}; {'Valkey' if info.valkey else 'Redis'} {version}"
    if info.loading:
        return DoctorCheck("redis", "problem", f"{name}, still loading its data", "wait until it has loaded it")
    if not info.valkey and info.version < _OLDEST_TESTED:
        return DoctorCheck(
            "redis", "warning", f"{name} is old: Vigil is tested on Valkey 9", "use Valkey 8 or Redis 7.2 or newer"
        )
    return DoctorCheck("redis", "ok", name)


def _persistence(config: dict[str, str], info: ServerInfo) -> DoctorCheck:
    sentence = describe_durability(config)
    if not info.last_write_ok:
        fix = "check its disk and its log now; see ops/runbook/RedisPersistence.md"
        return DoctorCheck("persistence", "problem", "Redis could not write to its disk the last time it tried.", fix)
    if config["appendonly"] != "yes":
        return DoctorCheck("persistence", "problem", sentence, "set appendonly yes and appendfsync always")
    if config["appendfsync"] == "always":
        return DoctorCheck("persistence", "ok", sentence)
    if config["appendfsync"] == "unknown":
        fix = "use a user that may `CONFIG GET`, such as worker of ops/users.acl, or ask its operator"
        return DoctorCheck("persistence", "warning", sentence, fix)
    return DoctorCheck("persistence", "warning", sentence, "set appendfsync always")


async def _restart(redis: Redis, url: str, settings: Settings) -> DoctorCheck:
    found = await assess_replay(redis, url)
    if found.verdict == "kept":
        return DoctorCheck("restart", "warning" if found.fix else "ok", found.detail, found.fix or None)
    return DoctorCheck("restart", "warning" if settings.allow_lossy_restart else "problem", found.detail, found.fix)


def _eviction(config: dict[str, str], settings: Settings) -> DoctorCheck:
    policy = config["maxmemory_policy"]
    if policy == "noeviction":
        return DoctorCheck("eviction", "ok", "noeviction: accepted jobs are never dropped for memory")
    if policy == "unknown":
        return DoctorCheck(
            "eviction", "warning", "the eviction policy can't be read", "make sure that it is noeviction"
        )
    state: State = "warning" if settings.allow_eviction else "problem"
    return DoctorCheck(
        "eviction", state, f"maxmemory-policy is {policy}: accepted jobs could vanish", "set it to noeviction"
    )


def _memory(info: ServerInfo, settings: Settings) -> DoctorCheck:
    used = f"{info.used_memory / 2**20:.0f} MiB used"
    if not info.maxmemory:
        detail = f"{used}; no maxmemory: the limit is the machine's memory, and neither a reserve nor shares are kept"
        return DoctorCheck("memory", "ok", detail)
    share = info.used_memory / info.maxmemory
    detail = f"{used}, {share:.0%} of maxmemory"
    if share < _MEMORY_WARNING:
        return DoctorCheck("memory", "ok", detail)
    refused_at = 1 - settings.memory_reserve_percent / 100
    state: State = "warning" if share < min(_MEMORY_PROBLEM, refused_at) else "problem"
    submits = "submits are refused now" if share >= refused_at else f"from {refused_at:.0%} on submits are refused"
    return DoctorCheck("memory", state, f"{detail}; {submits}", "see ops/runbook/RedisMemory.md")


async def _quotas(redis: Redis, info: ServerInfo, settings: Settings) -> DoctorCheck:
    """Check which apps are near a limit of what they may have waiting and stored."""
    apps, default = Apps(redis, Clock()), AppQuota(settings.app_max_waiting, settings.app_max_bytes)
    memory, near = info.maxmemory * settings.app_memory_percent // 100, list[str]()
    names = [app.name for app in await apps.list_apps()]
    for name in names:
        quota, use = (await apps.quota(name) or AppQuota(None, None)).over(default), await apps.quota_use(name)
        bounds = ((use.waiting, quota.waiting), (use.bytes, quota.bytes), (use.memory, memory))
        share = max(current / most for current, most in bounds if most) if any(most for _, most in bounds) else 0
        if share >= _QUOTA_WARNING:
            near.append(f"{name} {share:.0%}")
    if not near:
        return DoctorCheck("quotas", "ok", f"none of {len(names)} apps is near a limit of what it may have stored")
    detail = f"near a limit, beyond which submits are refused: {', '.join(near[:_MAX_NAMED])}"
    return DoctorCheck("quotas", "warning", detail, "`vigil keys quota APP` shows which limit; see ops/production.md")


def _password(info: ServerInfo, address: Address) -> DoctorCheck:
    if address.scheme == "unix":
        return DoctorCheck(
            "password", "ok", "a socket of this machine; the rights of its folder decide who may connect"
        )
    match info.admits_anonymous:
        case None:
            return DoctorCheck("password", "ok", "whether others may connect without a password was not tried")
        case False:
            return DoctorCheck("password", "ok", "nobody may connect without a user name and a password")
        case True:
            state: State = "warning" if address.local else "problem"
            detail = "the default user is on and has no password: whoever reaches Redis may read and change every job"
            return DoctorCheck("password", state, detail, _USERS_FIX)


def _rights(info: ServerInfo, address: Address) -> DoctorCheck:
    user = f"the user is {info.user!r}" if info.user else "the user name can't be read"
    if not info.is_admin:
        return DoctorCheck("rights", "ok", f"{user}, who may not empty, stop or configure the server")
    if address.scheme == "unix":
        return DoctorCheck("rights", "ok", f"{user}, on Vigil's own server")
    return DoctorCheck(
        "rights", "warning", f"{user}, who may do everything, also empty and stop the server", _USERS_FIX
    )


def _tls(address: Address) -> DoctorCheck:
    if address.scheme == "rediss":
        return DoctorCheck("tls", "ok", "the connection to Redis is encrypted")
    if address.scheme == "redis+sentinel":
        if address.local:
            return DoctorCheck("tls", "ok", "the sentinels are on this machine")
        return DoctorCheck(
            "tls", "warning", "the connection to Redis is not encrypted", "keep Redis in a network of its own"
        )
    if address.local:
        return DoctorCheck("tls", "ok", "Redis is on this machine: nothing crosses a network")
    return DoctorCheck(
        "tls", "warning", "passwords and jobs cross the network unencrypted", "use rediss://, or a network of its own"
    )


async def _workers(redis: Redis, clock: Clock) -> DoctorCheck:
    alive = await worker_registry.workers(redis, clock)
    draining = sum(bool(one.get("draining")) for one in alive)
    named = {tuple(one["accounts"]) for one in alive if "accounts" in one}
    if len(named) > 1:
        detail = f"they have different accounts: {'; '.join(', '.join(names) for names in sorted(named))}"
        fix = "give every worker the same file (VIGIL_ACCOUNTS_FILE) and restart those with the older one"
        return DoctorCheck("workers", "problem", detail, fix)
    if len(alive) > draining:
        more = f", {draining} of them draining" if draining else ""
        return DoctorCheck("workers", "ok", f"{len(alive)} with a heartbeat within a minute{more}")
    detail = "all workers drain" if alive else "no worker shows a heartbeat"
    return DoctorCheck("workers", "warning", f"{detail}: jobs are accepted and wait", "start `vigil worker`")


async def _audit_trail(redis: Redis, clock: Clock, settings: Settings) -> DoctorCheck:
    fix = "start a worker that has the key of `vigil audit key`; `vigil audit verify` shows more"
    try:
        last = await Seals(redis).last()
    except BadSeal:
        return DoctorCheck("audit trail", "problem", "its last checkpoint can't be read", "run `vigil audit verify`")
    waiting = await Trail(redis, clock).page(f"({last.last}" if last else "-", count=1)
    detail = f"the last checkpoint is number {last.number}, of {last.body['at']}" if last else "no checkpoint"
    if not waiting:
        return DoctorCheck("audit trail", "ok", f"{detail}; all records are covered")
    age = clock.now().timestamp() - stream_id(waiting[0].id)[0] / 1000
    if age <= _LATE_SEAL_ROUNDS * settings.audit_seal_seconds:
        return DoctorCheck("audit trail", "ok", f"{detail}; the next one is due")
    return DoctorCheck("audit trail", "warning", f"{detail}; records have waited {age:,.0f} s for the next one", fix)


async def _access(redis: Redis) -> DoctorCheck:
    rows = await known_access(redis)
    if not rows:
        return DoctorCheck("access", "warning", "which models may be called is unknown", "run `vigil probe`")
    not_ok = [f"{model} {row.status}" for model, row in sorted(rows.items()) if row.status != "ok"]
    granted = len(rows) - len(not_ok)
    if not not_ok:
        return DoctorCheck("access", "ok", f"all {granted} models may be called, as of the last probe")
    detail = f"{granted} of {len(rows)} models may be called; {', '.join(not_ok)}"
    return DoctorCheck("access", "warning", detail, "`vigil probe` shows the next step for each")
