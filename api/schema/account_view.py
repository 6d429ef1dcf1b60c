"""The members `account`, `accounts` and `rates` of GET /v1/status, and the body of GET /v1/accounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from api.schema.status_responses import (
    AccountFamilyView,
    AccountView,
    ConfiguredAccountView,
    ProviderAccountView,
    RatesView,
)
from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.accounts import AccountBindings
from worker.provider_accounts import ProviderAccount
from worker.safety.account import NOTICE_SECONDS, RATE_SECONDS, AccountVerdict, Counts, FamilyCounts
from worker.store.admission.circuit_breaker import OpenCircuit
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


def provider_account_view(name: str, state: AccountState, circuits: Sequence[OpenCircuit]) -> ProviderAccountView:
    """Return one of `accounts`: its state and its circuit."""
    circuit = next((one for one in circuits if one["account"] == name), None)
    return {
        "name": name,
        "state": state.verdict.state,
        "because": state.verdict.because,
        "circuit": circuit["state"] if circuit is not None else "closed",
        "circuit_reason": circuit["reason"] if circuit is not None else None,
        "families": {family: _family_view(counts, verdict) for family, (counts, verdict) in state.families.items()},
        "notices": dict(Counter(notice.type for notice in state.notices)),
    }


def configured_account_view(
    account: ProviderAccount, bindings: AccountBindings, state: ProviderAccountView
) -> ConfiguredAccountView:
    """Return an account as operators see it: its settings without secrets, who uses it, and its state."""

    def bound(table: Mapping[str, str]) -> list[str]:
        return sorted(name for name, used in table.items() if used == account.name)

    return {
        **state,
        "organization": account.organization,
        "project": account.project,
        "base_url": _without_user(account.base_url),
        "upstream": account.upstream,
        "receives_webhooks": account.webhook_secret is not None,
        "apps": bound(bindings.apps),
        "models": bound(bindings.models),
        "model_families": bound(bindings.families),
    }


def _without_user(address: str | None) -> str | None:
    """Return the address without a user and password, which some gateways take their key from."""
    if address is None or "@" not in address:
        return address
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def rates_view(accounts: Mapping[str, AccountState]) -> RatesView:
    """Return `rates` of all accounts: shares from 0 to 1, None where there is nothing to have a share of."""
    total = sum((counts for state in accounts.values() for counts in state.tally.hour.values()), Counts())
    ends = accounts[DEFAULT_ACCOUNT].tally.ends  # those of all accounts are counted there
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
