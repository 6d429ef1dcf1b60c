"""Rate limits as callers see them: the RateLimit header fields of draft-ietf-httpapi-ratelimit-headers.

There is one policy, "jobs": the size of the bucket, and the seconds in which an empty one fills. Must not know routes.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from worker.settings import Settings
from worker.store.admission.app_quota import AppQuota
from worker.store.admission.rate_limit import RateLimit, RateMeter
from worker.store.apps import ApiKey

_default_rate: Final = cache(RateLimit)
_default_quota: Final = cache(AppQuota)


def meter_of(settings: Settings, key: ApiKey) -> RateMeter:
    """Return the meter of one request, at the rate of the app or at the default rate."""
    return RateMeter(key.rate or _default_rate(settings.rate_per_minute, settings.rate_burst))


def quota_of(settings: Settings, key: ApiKey) -> AppQuota:
    """Return the quota of the key's app: its own bounds, and the default where it has none."""
    default = _default_quota(settings.app_max_waiting, settings.app_max_bytes)
    return default if key.quota is None else key.quota.over(default)


def rate_limit_headers(meter: RateMeter) -> dict[str, str]:
    """Return the header fields of a request that was charged; none if it was not."""
    if meter.left is None:
        return {}
    return header_fields(meter.rate.capacity, meter.rate.window_seconds, meter.left, meter.full_in)


def header_fields(limit: int, window: int, remaining: int, seconds: int) -> dict[str, str]:
    """Return the two header fields: the policy, and what remains of it for how many seconds."""
    return {"RateLimit-Policy": f'"jobs";q={limit};w={window}', "RateLimit": f'"jobs";r={remaining};t={seconds}'}
