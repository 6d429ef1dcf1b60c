"""How the account stands now: the counts and the notices put before the judgement, family by family.

Names no job, no app and no end user. Must not know: when a state is bad, what is done about it.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from arq.connections import ArqRedis

from worker.clock import to_ms
from worker.jobs.catalogue import Catalogue
from worker.safety.account import (
    NOTICE_SECONDS,
    RATE_SECONDS,
    AccountVerdict,
    Counts,
    FamilyCounts,
    judge_account,
    judge_family,
)
from worker.safety.notices import SafetyNotice
from worker.store import keys
from worker.store.connection.pool import store_errors
from worker.store.provider.request_counts import RequestCounts, checked_end_users, read_tally
from worker.store.provider.safety_notices import SafetyNotices

_OTHER: Final = "other"  # models that models.toml does not know
_AT_FIRST: Final = "normal"
_KEPT: Final = 30 * 86_400


class AccountState(NamedTuple):
    """The account's standing with all that it was judged by."""

    standing: AccountVerdict
    families: dict[str, tuple[FamilyCounts, AccountVerdict]]
    notices: list[SafetyNotice]
    tally: RequestCounts

    def view(self) -> dict[str, Any]:
        """`account` of GET /v1/status."""
        all_of = sum((seen.hour for seen, _ in self.families.values()), Counts())
        return {
            "state": self.standing.state,
            "families": {name: _family(seen, one) for name, (seen, one) in self.families.items()},
            "evidence": {
                "because": self.standing.because,
                "requests": all_of.ordinary + all_of.blocked,
                "signalled": all_of.signalled + all_of.blocked_signalled,
                "suspected": all_of.suspected,
                "blocks": all_of.blocked,
                "notices": dict(Counter(notice.type for notice in self.notices)),
                "last_notice_at": max((notice.received_at for notice in self.notices), default=None),
                "window_seconds": RATE_SECONDS,
                "notices_window_seconds": NOTICE_SECONDS,
            },
        }

    def rates(self) -> dict[str, Any]:
        """`rates` of GET /v1/status: shares from 0 to 1, None where there was nothing to have a share of."""
        all_of, ends = sum(self.tally.hour.values(), Counts()), self.tally.ends
        requests = all_of.ordinary + all_of.blocked
        checks = all_of.signalled + all_of.blocked_signalled
        return {
            "checks": round(checks / requests, 4) if requests else None,
            "blocks": round(ends.blocked / ends.all, 4) if ends.all else None,
            "substitutions": round(ends.substituted / ends.all, 4) if ends.all else None,
            "window_seconds": RATE_SECONDS,
        }


def _family(seen: FamilyCounts, one: AccountVerdict) -> dict[str, Any]:
    hour, share, usual = seen.hour, seen.half_hour.share, seen.before.share
    return {
        "state": one.state,
        "because": one.because,
        "requests": hour.ordinary,
        "checked": hour.signalled,
        "suspected": hour.suspected,
        "blocked": hour.blocked,
        "share": None if share is None else round(share, 4),
        "usual_share": None if usual is None else round(usual, 4),
        "end_users_checked": seen.end_users,
    }


async def account(redis: ArqRedis, catalogue: Catalogue, notices: SafetyNotices, now: datetime) -> AccountState:
    """The account as it stands `now`."""
    tally = await read_tally(redis, now)
    families: dict[str, tuple[FamilyCounts, AccountVerdict]] = {}
    for family, models in sorted(_families(catalogue, tally).items()):
        seen = FamilyCounts(
            hour=_of(tally.hour, models),
            half_hour=_of(tally.half_hour, models),
            before=_of(tally.before, models),
            end_users=await checked_end_users(redis, models, now) if _of(tally.half_hour, models).signalled else 0,
        )
        families[family] = (seen, judge_family(seen))
    came = await notices.since(to_ms(now - timedelta(seconds=NOTICE_SECONDS)))
    judged = judge_account({name: one for name, (_, one) in families.items()}, Counter(notice.type for notice in came))
    return AccountState(judged, families, came, tally)


def _families(catalogue: Catalogue, tally: RequestCounts) -> dict[str, list[str]]:
    """The models that may be checked, by family: those that models.toml says, and those that were."""
    out: dict[str, list[str]] = {model.family: [] for model in catalogue.models.values() if model.checked}
    for name, counts in {**tally.before, **tally.hour}.items():
        model = catalogue.find(name)
        if model is None or model.checked or counts.signalled:
            out.setdefault(model.family if model is not None else _OTHER, []).append(name)
    return out


def _of(counts: dict[str, Counts], models: list[str]) -> Counts:
    return sum((counts.get(model, Counts()) for model in models), Counts())


async def changed(redis: ArqRedis, states: dict[str, str]) -> dict[str, str]:
    """The states that are not what they were when this was last asked; each change is told to one caller alone."""
    moved: dict[str, str] = {}
    for name, state in states.items():
        async with store_errors("remember the account's state", keys.standing(name)):
            # MGET: what is no string there has told of nothing; SET with GET would refuse it for ever
            (before,) = await redis.mget([keys.standing(name)])
            if before != state.encode():
                told = await redis.set(keys.standing(name), state, ex=_KEPT, get=before is not None)
                before = told if before is not None else None
            if state != (before.decode(errors="replace") if before else _AT_FIRST):
                moved[name] = state
    return moved
