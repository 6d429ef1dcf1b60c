"""Rate limits as callers see them: the RateLimit header fields of draft-ietf-httpapi-ratelimit-headers.

One policy, "jobs": what a full bucket holds, in the seconds in which an empty one fills. Must not know routes.
"""

from __future__ import annotations

from api.runtime.context import Parts
from worker.store.admission.rate_limit import Meter, Rate
from worker.store.apps import ApiKey


def meter_of(parts: Parts, key: ApiKey) -> Meter:
    """The meter of one request: at the rate of the app, or at the default."""
    default = Rate(parts.settings.rate_per_minute, parts.settings.rate_burst)
    return Meter(key.rate if key.rate is not None else default)


def left(meter: Meter) -> dict[str, str]:
    """What a charged request says of the bucket; nothing where nothing was charged."""
    if meter.left is None:
        return {}
    return fields(meter.rate.holds, meter.rate.window_seconds, meter.left, meter.full_in)


def fields(limit: int, window: int, remaining: int, seconds: int) -> dict[str, str]:
    """The two header fields: the policy, and what remains of it for how long."""
    return {"RateLimit-Policy": f'"jobs";q={limit};w={window}', "RateLimit": f'"jobs";r={remaining};t={seconds}'}
