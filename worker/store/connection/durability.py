"""Read how Redis keeps its data, refuse one that may evict accepted jobs, and say what a 202 guarantees."""

from __future__ import annotations

from arq.connections import ArqRedis
from redis.exceptions import NoPermissionError, RedisError

from worker.jobs.errors import UnsafeStore
from worker.store.errors import store_errors


async def check_durability(redis: ArqRedis, *, allow_eviction: bool = False) -> dict[str, str]:
    """Return the persistence settings of Redis. Raises UnsafeStore when it may evict accepted jobs.

    Keys: maxmemory_policy, appendonly, appendfsync, version; a value is "unknown" where CONFIG or INFO is forbidden.
    """
    async with store_errors("report its durability"):
        try:
            info = await redis.info()
        except NoPermissionError:
            info = {}  # `command_rights` reports the missing right
        found = {
            "version": str(info.get("valkey_version") or info.get("redis_version")),
            "maxmemory_policy": str(info.get("maxmemory_policy", "unknown")),
            "appendonly": ("yes" if info.get("aof_enabled") else "no") if info else "unknown",
            "appendfsync": "unknown",
        }
        try:
            config = await redis.config_get("appendfsync", "maxmemory-policy")
            found["appendfsync"] = config.get("appendfsync", "unknown")
            found["maxmemory_policy"] = config.get("maxmemory-policy", found["maxmemory_policy"])
        except RedisError:
            pass  # a managed Redis forbids CONFIG; the values of INFO have to do
    if found["maxmemory_policy"] not in {"noeviction", "unknown"} and not allow_eviction:
        raise UnsafeStore(
            f"Redis evicts keys (maxmemory-policy {found['maxmemory_policy']}), so accepted jobs could vanish. "
            "Set it to noeviction, or VIGIL_ALLOW_EVICTION=1 if losing jobs is acceptable."
        )
    return found


def describe_durability(settings: dict[str, str]) -> str:
    """Return the guarantee behind a 202 in one sentence; `settings` are those of `check_durability`."""
    if settings["appendonly"] != "yes":
        return "An accepted job is lost if Redis stops: the append-only file is off (set appendonly yes)."
    match settings["appendfsync"]:
        case "always":
            return "An accepted job survives a crash and a power cut: every write is on disk before the answer."
        case "everysec":
            return (
                "An accepted job survives a crash of Redis; a power cut may take the last second or two "
                "(appendfsync everysec; set it to always)."
            )
        case "no":
            return (
                "An accepted job survives a crash of Redis; a power cut may take the last half minute (appendfsync no)."
            )
        case _:
            return "Redis writes an append-only file; how often it reaches the disk can't be read here."
