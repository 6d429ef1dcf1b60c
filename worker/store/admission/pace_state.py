"""Read the meters of the provider's accounts, and what waits at limits. Names no job, no app and no end user."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from arq.connections import ArqRedis
from typing_extensions import TypedDict

from worker.clock import Clock, from_ms, to_ms
from worker.jobs.view_schema import WaitReason, documented
from worker.store import keys
from worker.store.admission.pacing import read_limit
from worker.store.errors import store_errors
from worker.store.values import pipeline_replies, reporting_unreadable

_MAX_METERS: Final = 200
_MAX_LIMITS: Final = 500
_MAX_APPS: Final = 200
_KEPT_MS: Final = 86_400_000


@documented
class MeterView(TypedDict):
    """What one model of a provider account may still be called now."""

    account: str
    model: str
    requests_limit: int | None
    """The provider's, in its own window; null while it has stated none."""
    requests_left: int | None
    tokens_limit: int | None
    tokens_left: int | None
    closed_until: datetime | None
    """Until then nothing calls, because the provider has answered 429; null if it is open."""
    last_call_at: datetime | None


@documented
class WaitingView(TypedDict):
    """How many jobs wait at one limit; those of end users are added up."""

    reason: WaitReason
    account: str | None
    model: str | None
    """The model, or with `account_checks` the family."""
    jobs: int
    next_at: datetime | None
    """When the limit lets the next one through, as far as is known."""


class PacingView(TypedDict):
    """The provider's limits as the workers know them, and what waits for them."""

    meters: list[MeterView]
    waiting: list[WaitingView]


async def read_pacing(redis: ArqRedis, clock: Clock) -> PacingView:
    """Read both now: the meters of the last day, the busiest limits; a limit counts the jobs of 200 apps at most."""
    now = to_ms(clock.now())
    return {"meters": await _meters(redis, now), "waiting": await _waiting(redis, now)}


async def _meters(redis: ArqRedis, now: int) -> list[MeterView]:
    names = list[str]()
    with reporting_unreadable():
        async with store_errors("list the meters", keys.METERS):
            found = await redis.zrevrangebyscore(keys.METERS, "+inf", now - _KEPT_MS, start=0, num=_MAX_METERS)
            names = sorted(name.decode(errors="replace") for name in found)
    if not names:
        return []
    meters = [keys.meter(name) for name in names]
    async with store_errors("read the meters"), redis.pipeline(transaction=False) as pipe:
        for meter in meters:
            pipe.hgetall(meter)
        rows = await pipeline_replies(pipe, meters)
    return [
        _meter(name, {field.decode(errors="replace"): _number(text) for field, text in row.items()}, now)
        for name, row in zip(names, rows, strict=True)
        if row and not name.startswith("family:")
    ]


def _meter(name: str, meter: Mapping[str, float | None], now: int) -> MeterView:
    account, _, model = name.partition(":")
    closed, last = meter.get("closed_until") or 0, meter.get("last_call")
    return {
        "account": account,
        "model": model,
        "requests_limit": _whole(meter.get("requests_limit")),
        "requests_left": _left(meter, "requests", now),
        "tokens_limit": _whole(meter.get("tokens_limit")),
        "tokens_left": _left(meter, "tokens", now),
        "closed_until": from_ms(int(closed)) if closed > now else None,
        "last_call_at": from_ms(int(last)) if last else None,
    }


def _left(meter: Mapping[str, float | None], what: str, now: int) -> int | None:
    """Return what is left of a limit now, as pace.lua reckons."""
    limit, left, at, rate = (meter.get(f"{what}_{part}") for part in ("limit", "left", "at", "rate"))
    if limit is None or left is None or at is None or rate is None:
        return None
    return max(0, int(min(limit, left + rate * max(0, now - at))))


async def _waiting(redis: ArqRedis, now: int) -> list[WaitingView]:
    limits = list[tuple[str, float]]()
    with reporting_unreadable():
        async with store_errors("list the limits", keys.LIMITS):
            found = await redis.zrange(keys.LIMITS, 0, _MAX_LIMITS - 1, withscores=True)
            limits = [(name.decode(errors="replace"), at) for name, at in found]
    async with store_errors("count what waits"):
        names = [keys.limit_apps(limit) for limit, _ in limits]
        async with redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.zrange(name, 0, _MAX_APPS - 1)
            apps = await pipeline_replies(pipe, names)
        lines = [
            (number, keys.limit_line(limit, app.decode(errors="replace")))
            for number, ((limit, _), row) in enumerate(zip(limits, apps, strict=True))
            for app in row or ()
        ]
        async with redis.pipeline(transaction=False) as pipe:
            for _, line in lines:
                pipe.zcard(line)
            counts = await pipeline_replies(pipe, [line for _, line in lines])
    jobs = [0] * len(limits)
    for (number, _), count in zip(lines, counts, strict=True):
        jobs[number] += count or 0
    return _summed([(limit, at, count) for (limit, at), count in zip(limits, jobs, strict=True) if count], now)


def _summed(rows: list[tuple[str, float, int]], now: int) -> list[WaitingView]:
    """Return a row for each limit (name, when it is looked at, jobs), and one for all limits of end users together."""
    out: dict[tuple[WaitReason, str | None, str | None], WaitingView] = {}
    for limit, at, count in rows:
        try:
            reason, account, model = read_limit(limit)
        except (KeyError, ValueError):
            continue
        next_at = from_ms(int(max(at, now))) if reason == "provider_rate" else None
        row = out.setdefault(
            (reason, account, model),
            {"reason": reason, "account": account, "model": model, "jobs": 0, "next_at": next_at},
        )
        row["jobs"] += count
    return [out[key] for key in sorted(out, key=lambda key: tuple(part or "" for part in key))]


def _number(text: bytes) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
