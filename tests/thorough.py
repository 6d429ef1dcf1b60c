"""How much the tests try: enough to notice a fault every day, and more of it on request (`make test-thorough`)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

THOROUGH = bool(os.environ.get("VIGIL_TEST_THOROUGH"))  # noqa: TID251
"""1 tries all that there is time for."""


def cases(everyday: int, thorough: int) -> int:
    """So many cases are tried."""
    return thorough if THOROUGH else everyday


def load_profile() -> None:
    """No property has a time limit: that would be a verdict on the machine."""
    slow = (HealthCheck.too_slow,)
    settings.register_profile("vigil", deadline=None, max_examples=cases(20, 200), suppress_health_check=slow)
    settings.load_profile("vigil")
