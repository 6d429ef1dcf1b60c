"""Defines scenarios in which another model than the requested one serves, or seems to.

Pure data, part of scenarios.py's table.
"""

from __future__ import annotations

from typing import Final

from .scenario import Expected, Scenario

SERVING_SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "rerouted",
        "Another model serves, told by header, snapshot and terminal event.",
        {"route": "header", "served": "gpt-5.6-luna"},
        ("served", "only"),
        Expected(note="disclosure provider_reroute; failed with require_model"),
    ),
    Scenario(
        "model_conflict",
        "created names the requested model, completed another, no header.",
        {"route": "conflict", "served": "gpt-5.6-terra"},
        ("served", "only"),
        Expected(note="disclosure provider_reroute, flag model_conflict"),
    ),
    Scenario("alias", "The answer names the dated model: not a reroute.", {"route": "alias"}, ("served",), Expected()),
)
