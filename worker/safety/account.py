"""Judges how the provider treats this account: by the share of ordinary requests that were checked, and by notices.

One checked prompt says something of the prompt, many checked prompts of one end user say something of that end user;
only checks on the ordinary requests of several end users say that the whole account is under extra checks (widened).
*Ordinary* is a request that the provider answered without withholding anything. Only signalled checks decide: suspected
ones are shown beside them and change nothing (promise P5). Pure: it must not depend on Redis or time.

The numbers are the start values of operations.md (ChecksWidened, SafetyCheckRateUp).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from worker.safety.notices import DEACTIVATION, ORG_ALERT, WARNING

State = Literal["normal", "elevated", "widened"]
AccountReason = Literal["checks_widened", "checks_on_few_end_users", "check_rate_up", "provider_notice"]

RATE_SECONDS: Final = 3600
"""The window of the rates, and of the comparison with the days before."""
WIDENED_SECONDS: Final = 1800
"""The window in which widened checks are looked for."""
NOTICE_SECONDS: Final = 7 * 86_400
"""How long a notice counts: the loss of access usually follows a warning after seven days (wire.md section 3)."""
BASELINE_DAYS: Final = 7

MIN_ORDINARY_REQUESTS: Final = 20
"""With fewer ordinary requests than this no share is judged."""
WIDENED_SHARE: Final = 0.8
MIN_END_USERS: Final = 3
"""Checks on fewer end users than this concern those end users. A job without an end user counts as one."""
RISE_FACTOR: Final = 3.0
"""A share is unusual if it exceeds that of the same hour of the last seven days by this factor."""
MIN_RISE_SHARE: Final = 0.1
"""Below this share a rise is noise, whatever the days before were like."""
UNUSUAL_SHARE: Final = 0.3
"""The share that counts as unusual if there are no days before to compare with."""

ACCOUNT_NOTICES: Final = frozenset({WARNING, DEACTIVATION, ORG_ALERT})
_SEVERITY: Final[tuple[State, ...]] = ("normal", "elevated", "widened")


class Counts(NamedTuple):
    """Attempts of one window: ordinary ones, how many of them were checked, and those that were blocked."""

    ordinary: int = 0
    signalled: int = 0  # of the ordinary ones: a check was signalled
    suspected: int = 0  # of the ordinary ones: only silence makes one likely
    blocked: int = 0
    blocked_signalled: int = 0

    def __add__(self, other: object) -> Counts:
        """Return the sum of the counts of two windows or two models."""
        if not isinstance(other, Counts):
            return NotImplemented
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def share(self) -> float | None:
        """Return the share of the ordinary requests that was checked, or None if there were none."""
        return self.signalled / self.ordinary if self.ordinary else None


class FamilyCounts(NamedTuple):
    """The counts of one family of models."""

    hour: Counts = Counts()
    half_hour: Counts = Counts()
    before: Counts = Counts()  # the same hour of the last seven days
    end_users: int = 0  # different ones among those checked in the half hour


class AccountVerdict(NamedTuple):
    """A state, and the reasons if it is not normal."""

    state: State
    because: tuple[AccountReason, ...] = ()


def judge_family(counts: FamilyCounts) -> AccountVerdict:
    """Return the verdict on one family."""
    recent = counts.half_hour
    if recent.ordinary >= MIN_ORDINARY_REQUESTS and (recent.share or 0.0) > WIDENED_SHARE:
        if counts.end_users >= MIN_END_USERS:
            return AccountVerdict("widened", ("checks_widened",))
        return AccountVerdict("elevated", ("checks_on_few_end_users",))
    hour, before = counts.hour, counts.before
    share = hour.share or 0.0
    usual = before.share if before.ordinary >= MIN_ORDINARY_REQUESTS else None
    limit = UNUSUAL_SHARE if usual is None else max(MIN_RISE_SHARE, RISE_FACTOR * usual)
    if hour.ordinary > MIN_ORDINARY_REQUESTS and share > limit:
        return AccountVerdict("elevated", ("check_rate_up",))
    return AccountVerdict("normal")


def judge_account(families: Mapping[str, AccountVerdict], notices: Mapping[str, int]) -> AccountVerdict:
    """Return the verdict on the account: that of its worst family, at least elevated while a notice counts.

    `notices`: the number of notices within NOTICE_SECONDS, by type.
    """
    because = {why for one in families.values() for why in one.because}
    state: State = max((one.state for one in families.values()), key=_SEVERITY.index, default="normal")
    if any(notices.get(kind) for kind in ACCOUNT_NOTICES):
        because.add("provider_notice")
        state = "elevated" if state == "normal" else state
    return AccountVerdict(state, tuple(sorted(because)))
