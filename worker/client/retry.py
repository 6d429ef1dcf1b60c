"""Whether a question is asked again, and after how long: a value in, a number of seconds or None out.

Pure: time and dice come in as arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

NOT_TAKEN: Final = frozenset({429})
"""Statuses that say that nothing was done: any question may be asked again."""
PASSING: Final = frozenset({429, 502, 503, 504})
"""Statuses after which a repeatable question is asked again."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How patient a client is.

    Pause n is `first * 2**n` seconds, at most `longest`, less up to half of it by the dice; never less than the
    server asked for in Retry-After, and one above `most_asked` is not waited for.
    """

    times: int = 5
    """How often one question is asked again."""
    patience: float = 60.0
    """Seconds for which `wait` and `events` go on asking an API that has gone away."""
    first: float = 0.25
    longest: float = 8.0
    most_asked: float = 60.0

    def pause(self, tries: int, chance: float, asked: float | None = None) -> float | None:
        """Seconds before try number `tries` + 1; None when the server asks for more patience than we have."""
        if asked is not None and asked > self.most_asked:
            return None
        grown: float = min(self.longest, self.first * 2 ** min(tries - 1, 30))
        return max(asked or 0.0, grown * (1 - chance / 2))


def may_repeat(*, repeatable: bool, status: int | None, sent: bool) -> bool:
    """Whether asking again can do no harm. `status` None: the connection failed, before or after all was `sent`."""
    if status is None:
        return repeatable or not sent
    return status in (PASSING if repeatable else NOT_TAKEN)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds of a Retry-After header, given as a number or as a date; None without one that can be read."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())
