"""Rate-limit headers: what the provider says is read, what is silly counts as not said."""

from __future__ import annotations

import pytest

from worker.safety.provider_limits import Allowance, ProviderLimits, read_provider_limits

PARTS = ("limit", "remaining", "reset")


def headers(limit: str, left: str, reset: str, kind: str = "requests") -> dict[str, str]:
    return {f"x-ratelimit-{part}-{kind}": text for part, text in zip(PARTS, (limit, left, reset), strict=True)}


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("120ms", 0.12), ("1m2.5s", 62.5), ("2h3m", 7380.0), ("12", 12.0), ("0s", 0.0), ("1d", 86_400.0)],
)
def test_requests_and_tokens_are_read_with_every_spelling_of_a_duration(reset, seconds):
    both = headers("500", "499", reset) | headers("2000000", "1999000", reset, "tokens")
    found = read_provider_limits(both)
    assert found == ProviderLimits(Allowance(500, 499, seconds), Allowance(2_000_000, 1_999_000, seconds))


@pytest.mark.parametrize(
    ("limit", "left"),
    [("", ""), ("0", "0"), ("-5", "3"), ("1e9", "1"), ("500", "-1"), ("500", "many"), ("9" * 40, "1")],
)
def test_a_limit_that_can_be_none_is_not_said(limit, left):
    assert read_provider_limits(headers(limit, left, "1s")) == ProviderLimits()


@pytest.mark.parametrize("reset", ["", "soon", "-1s", "1796045930", "99999d", "2026-11-30T13:00:00Z", "1s 2s", "ms"])
def test_a_reset_that_is_no_duration_of_a_day_leaves_the_rest(reset):
    assert read_provider_limits(headers("500", "0", reset)).requests == Allowance(500, 0, None)


def test_more_left_than_the_limit_is_the_limit_and_of_account_and_project_the_tighter_counts():
    assert read_provider_limits(headers("500", "900", "1s")).requests == Allowance(500, 500, 1.0)
    both = headers("1000", "900", "6s", "tokens") | headers("400", "10", "9s", "project-tokens")
    assert read_provider_limits(both).tokens == Allowance(400, 10, 9.0)
