"""Reads times that people type: so many days or hours, or a date."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from worker.cli.errors import EXIT_USAGE, CliError

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhdw])")


def parse_seconds(option: str, text: str) -> int:
    """Return the seconds of `90d`, `12h`, `30m`, `2w` or `3600s`. Raise CliError for anything else."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise CliError(f"{option} takes a time such as 90d, 12h or 30m, not {text!r}", EXIT_USAGE)
    return int(found[1]) * _SECONDS[found[2]]


def parse_end(option: str, text: str, now: datetime) -> datetime:
    """Return when `90d` from now is, or a date or time such as 2027-01-31, which begins at 00:00 UTC.

    Raise CliError for anything else, and for what is not in the future.
    """
    try:
        if _DURATION.fullmatch(text):
            at = now + timedelta(seconds=parse_seconds(option, text))
        else:
            at = datetime.fromisoformat(text)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        detail = f"{option} takes so many days such as 90d, or a date such as 2027-01-31, not {text!r}"
        raise CliError(detail, EXIT_USAGE) from None
    if at <= now:
        raise CliError(f"{option} {text} is not in the future", EXIT_USAGE)
    return at.astimezone(UTC)
