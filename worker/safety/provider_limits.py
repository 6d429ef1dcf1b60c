"""Reads the provider's rate-limit headers: the limit, what is left of it, and when it is whole again.

Pure. What is absent, malformed or impossible counts as not said: a header may slow calls down, never stop them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_PREFIX: Final = "x-ratelimit-"
_WHOLE: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_SPAN: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_MAX_RESET_S: Final = 86_400.0  # longer, and above all a time in place of a duration, is not believed


@dataclass(frozen=True, slots=True)
class Allowance:
    """One limit as an answer states it; `reset_seconds` until all of it is there again, None if it does not say."""

    limit: int
    remaining: int
    reset_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ProviderLimits:
    """What an answer says of requests and of tokens; None = nothing that can be used."""

    requests: Allowance | None = None
    tokens: Allowance | None = None


def read_provider_limits(headers: Mapping[str, str]) -> ProviderLimits:
    """Return what the headers of an answer (names in lower case) say; of account and project the tighter limit."""
    return ProviderLimits(_tighter(headers, "requests"), _tighter(headers, "tokens"))


def _tighter(headers: Mapping[str, str], kind: str) -> Allowance | None:
    found = [one for name in (kind, f"project-{kind}") if (one := _allowance(headers, name)) is not None]
    return min(found, key=lambda one: (one.remaining / one.limit, one.limit), default=None)


def _allowance(headers: Mapping[str, str], name: str) -> Allowance | None:
    limit, left = _whole(headers.get(f"{_PREFIX}limit-{name}")), _whole(headers.get(f"{_PREFIX}remaining-{name}"))
    if not limit or left is None:
        return None
    return Allowance(limit, min(left, limit), _duration(headers.get(f"{_PREFIX}reset-{name}")))


def _whole(value: str | None) -> int | None:
    text = (value or "").strip()
    return int(text) if _WHOLE.fullmatch(text) else None


def _duration(value: str | None) -> float | None:
    """Return the seconds of "6ms", "1m2.5s" or "12", None for anything else and for more than a day."""
    text = (value or "").strip().lower()
    spans = _SPAN.findall(text)
    if "".join(number + unit for number, unit in spans) == text and spans:
        seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in spans)
    elif _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        return None
    return seconds if seconds <= _MAX_RESET_S else None
