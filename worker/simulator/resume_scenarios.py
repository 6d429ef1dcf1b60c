"""Defines scenarios of a cut stream whose resume or poll is refused, delayed or answered in an unusual way.

Pure data, like scenarios.py.
"""

from __future__ import annotations

from typing import Any, Final

from .scenario import Expected, Scenario

_OPTIONS = ("how", "after", "times", "tokens", "rate", "looks", "look_hold")


def _scenario(name: str, description: str, looks: str, **more: Any) -> Scenario:
    defaults = {"how": "rst", "times": 1, "looks": looks, **more}
    options = (*_OPTIONS, *(["retry_after"] if "retry_after" in more else []))
    return Scenario(name, description, defaults, options, Expected(note="resumed; the prompt is sent once"))


RESUME_SCENARIOS: Final[tuple[Scenario, ...]] = (
    _scenario(
        "look_limited",
        "A cut stream, then HTTP 429 with retry-after for every GET of the response, for a while.",
        "limited",
        look_hold=8.0,
        retry_after=3.0,
    ),
    _scenario(
        "look_overloaded", "A cut stream, then HTTP 503 for every GET of the response.", "overloaded", look_hold=8.0
    ),
    _scenario("late_visible", "A cut stream whose response a GET does not find yet (404).", "late", look_hold=4.0),
    _scenario("snapshot_on_resume", "A cut stream whose resume is answered with JSON, like a poll.", "snapshot"),
)
