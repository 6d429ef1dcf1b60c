"""The members `account` and `rates` of GET /v1/status."""

from __future__ import annotations

from collections import Counter

from api.schema.status_responses import AccountFamilyView, AccountView, RatesView
from worker.safety.account import NOTICE_SECONDS, RATE_SECONDS, AccountVerdict, Counts, FamilyCounts
from worker.store.provider.account_state import AccountState


def account_view(state: AccountState) -> AccountView:
    """Return `account`: the verdict, by family, and what it is based on."""
    total = sum((counts.hour for counts, _ in state.families.values()), Counts())
    return {
        "state": state.verdict.state,
        "families": {name: _family_view(counts, verdict) for name, (counts, verdict) in state.families.items()},
        "evidence": {
            "because": state.verdict.because,
            "requests": total.ordinary + total.blocked,
            "signalled": total.signalled + total.blocked_signalled,
            "suspected": total.suspected,
            "blocks": total.blocked,
            "notices": dict(Counter(notice.type for notice in state.notices)),
            "last_notice_at": max((notice.received_at for notice in state.notices), default=None),
            "window_seconds": RATE_SECONDS,
            "notices_window_seconds": NOTICE_SECONDS,
        },
    }


def rates_view(state: AccountState) -> RatesView:
    """Return `rates`: shares from 0 to 1, None where there is nothing to have a share of."""
    total, ends = sum(state.tally.hour.values(), Counts()), state.tally.ends
    requests = total.ordinary + total.blocked
    checks = total.signalled + total.blocked_signalled
    return {
        "checks": round(checks / requests, 4) if requests else None,
        "blocks": round(ends.blocked / ends.all, 4) if ends.all else None,
        "substitutions": round(ends.substituted / ends.all, 4) if ends.all else None,
        "window_seconds": RATE_SECONDS,
    }


def _family_view(counts: FamilyCounts, verdict: AccountVerdict) -> AccountFamilyView:
    hour, share, usual = counts.hour, counts.half_hour.share, counts.before.share
    return {
        "state": verdict.state,
        "because": verdict.because,
        "requests": hour.ordinary,
        "checked": hour.signalled,
        "suspected": hour.suspected,
        "blocked": hour.blocked,
        "share": None if share is None else round(share, 4),
        "usual_share": None if usual is None else round(usual, 4),
        "end_users_checked": counts.end_users,
    }
