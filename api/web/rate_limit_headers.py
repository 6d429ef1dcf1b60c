"""Rate limits as callers see them: the RateLimit header fields of draft-ietf-httpapi-ratelimit-headers.

One policy, "jobs": what a full bucket holds, in the seconds in which an empty one fills. Must not know routes.
"""

from __future__ import annotations

from api.runtime.context import AppContext
from worker.store.admission.rate_limit import RateLimit, RateMeter
from worker.store.apps import ApiKey


def meter_of(parts: AppContext, key: ApiKey) -> RateMeter:
    """The meter of one request: at the rate of the app, or at the default."""
    default = RateLimit(parts.settings.rate_per_minute, parts.settings.rate_burst)
    return RateMeter(key.rate if key.rate is not None else default)


def left(meter: RateMeter) -> dict[str, str]:
    """What a charged request says of the bucket; nothing where nothing was charged."""
    if meter.left is None:
        return {}
    return fields(meter.rate.capacity, meter.rate.window_seconds, meter.left, meter.full_in)


def fields(limit: int, window: int, remaining: int, seconds: int) -> dict[str, str]:
    """The two header fields: the policy, and what remains of it for how long."""
    return {"RateLimit-Policy": f'"jobs";q={limit};w={window}', "RateLimit": f'"jobs";r={remaining};t={seconds}'}
