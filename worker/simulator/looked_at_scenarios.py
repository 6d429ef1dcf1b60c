"""Scenarios of a cut stream whose response can't be read on as usual: looks that are refused, late or answered oddly.

Pure data, like scenarios.py.
"""

from __future__ import annotations

from typing import Any, Final

from .scenario import Expected, Scenario

_LOOKS = ("how", "after", "times", "tokens", "rate", "looks", "look_hold")


def _looked_at(name: str, description: str, looks: str, **more: Any) -> Scenario:
    defaults = {"how": "rst", "times": 1, "looks": looks, **more}
    options = (*_LOOKS, *(["retry_after"] if "retry_after" in more else []))
    return Scenario(name, description, defaults, options, Expected(note="resumed; the prompt is sent once"))


LOOKED_AT: Final[tuple[Scenario, ...]] = (
    _looked_at(
        "look_limited",
        "A cut stream, then HTTP 429 with retry-after for every GET of the response, for a while.",
        "limited",
        look_hold=8.0,
        retry_after=3.0,
    ),
    _looked_at(
        "look_overloaded", "A cut stream, then HTTP 503 for every GET of the response.", "overloaded", look_hold=8.0
    ),
    _looked_at("late_visible", "A cut stream whose response a GET does not find yet (404).", "late", look_hold=4.0),
    _looked_at("snapshot_on_resume", "A cut stream whose resume is answered with JSON, like a poll.", "snapshot"),
)
