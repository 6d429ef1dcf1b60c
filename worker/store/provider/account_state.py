"""Read the state of the provider's account: counts and notices, judged by `worker.safety.account`, family by family.

It names no job, no app and no end user.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from arq.connections import ArqRedis

from worker.clock import to_ms
from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.catalogue import Catalogue
from worker.safety.account import (
    NOTICE_SECONDS,
    AccountVerdict,
    Counts,
    FamilyCounts,
    judge_account,
    judge_family,
)
from worker.safety.notices import SafetyNotice
from worker.store import keys
from worker.store.errors import store_errors
from worker.store.provider.request_counts import RequestCounts, checked_end_users, read_request_counts
from worker.store.provider.safety_notices import SafetyNotices

_OTHER_FAMILY: Final = "other"  # models that models.toml does not know
_INITIAL_STATE: Final = "normal"
_STATE_TTL_S: Final = 30 * 86_400


class AccountState(NamedTuple):
    """The verdict on the account, with all that it is based on."""

    verdict: AccountVerdict
    families: dict[str, tuple[FamilyCounts, AccountVerdict]]
    notices: list[SafetyNotice]
    tally: RequestCounts


async def read_account_state(
    redis: ArqRedis, catalogue: Catalogue, notices: SafetyNotices, now: datetime, account: str = DEFAULT_ACCOUNT
) -> AccountState:
    """Read and judge the state of this account at `now`."""
    tally = await read_request_counts(redis, now, account)
    families: dict[str, tuple[FamilyCounts, AccountVerdict]] = {}
    for family, models in sorted(_families(catalogue, tally).items()):
        half_hour = _of(tally.half_hour, models)
        counts = FamilyCounts(
            hour=_of(tally.hour, models),
            half_hour=half_hour,
            before=_of(tally.before, models),
            end_users=await checked_end_users(redis, models, now, account)
            if _of(tally.half_hour, models).signalled
            else 0,
        )
        families[family] = (counts, judge_family(counts))
    since = to_ms(now - timedelta(seconds=NOTICE_SECONDS))
    recent = [notice for notice in await notices.since(since) if notice.account == account]
    verdict = judge_account(
        {name: one for name, (_, one) in families.items()}, Counter(notice.type for notice in recent)
    )
    return AccountState(verdict, families, recent, tally)


def _families(catalogue: Catalogue, tally: RequestCounts) -> dict[str, list[str]]:
    """Return the models that may be checked, by family: those of models.toml, and those that were checked."""
    out: dict[str, list[str]] = {model.family: [] for model in catalogue.models.values() if model.checked}
    for name, counts in {**tally.before, **tally.hour}.items():
        model = catalogue.find(name)
        if model is None or model.checked or counts.signalled:
            out.setdefault(model.family if model is not None else _OTHER_FAMILY, []).append(name)
    return out


def _of(counts: dict[str, Counts], models: list[str]) -> Counts:
    return sum((counts.get(model, Counts()) for model in models), Counts())


async def read_account_states(
    redis: ArqRedis, catalogue: Catalogue, notices: SafetyNotices, now: datetime, accounts: Sequence[str]
) -> dict[str, AccountState]:
    """Read and judge the state of each account at `now`."""
    found = [await read_account_state(redis, catalogue, notices, now, account) for account in accounts]
    return dict(zip(accounts, found, strict=True))


async def record_changes(redis: ArqRedis, states: dict[str, str], account: str = DEFAULT_ACCOUNT) -> dict[str, str]:
    """Store the states of an account and its families; return those that changed, each change to one caller only."""
    changed: dict[str, str] = {}
    for name, state in states.items():
        key = keys.account_state(name, account)
        async with store_errors("remember the account's state", key):
            # MGET gives None for a key of another type; SET with GET would fail on it for ever
            (before,) = await redis.mget([key])
            if before != state.encode():
                previous = await redis.set(key, state, ex=_STATE_TTL_S, get=before is not None)
                before = previous if before is not None else None
            if state != (before.decode(errors="replace") if before else _INITIAL_STATE):
                changed[name] = state
    return changed
