"""The check of `vigil doctor` for API keys that end soon or have ended."""

from __future__ import annotations

from typing import Final

from worker.cli.doctor.check import DoctorCheck
from worker.cli.rendering import clean
from worker.clock import Clock, from_ms, to_ms
from worker.jobs.timestamps import iso_utc
from worker.store.apps import SOON_MS, ApiKey, Apps
from worker.store.connection.pool import Redis

_MAX_NAMED: Final = 5


async def key_check(redis: Redis, clock: Clock) -> DoctorCheck:
    """Warn of keys that end within two weeks; those that ended within two weeks may still be in use somewhere."""
    now = to_ms(clock.now())
    found = [key for key in await Apps(redis, clock).list_keys() if not key.revoked_at]
    live = [key for key in found if key.is_live(now)]
    ending = [key for key in found if key.expires_at and abs(key.expires_at - now) < SOON_MS]
    if not ending:
        return DoctorCheck("API keys", "ok", f"{len(live)} live; none ends within {SOON_MS // 86_400_000} days")
    named = ", ".join(_described(key, now) for key in sorted(ending, key=lambda key: key.expires_at)[:_MAX_NAMED])
    more = f" and {len(ending) - _MAX_NAMED} more" if len(ending) > _MAX_NAMED else ""
    fix = "make new keys with `vigil keys create`, give them to whoever uses these, then revoke these"
    return DoctorCheck("API keys", "warning", f"{len(live)} live; {named}{more}", fix)


def _described(key: ApiKey, now: int) -> str:
    whose = f" ({clean(key.person)})" if key.person else ""
    verb = "expired" if key.is_expired(now) else "expires"
    return f"{key.id} of app {clean(key.app)}{whose} {verb} {iso_utc(from_ms(key.expires_at), 'seconds')}"
