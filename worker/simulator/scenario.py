"""Defines the types of a scenario and of the result that a client is expected to show.

Pure. The scenarios themselves are in scenarios.py.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Expected:
    """The result that Vigil (default policy, background mode) should show, in the terms of the contract."""

    status: str = "completed"  # job status
    outcome: str = "completed"  # outcome of the attempt that met the scenario
    block: str | None = None  # block category
    carrier: str | None = None  # block carrier
    check: str | None = None  # signalled | suspected | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way for the provider to behave; `spares_fast_tier`: models named luna or mini answer normally."""

    name: str
    description: str
    defaults: dict[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    expected: Expected = Expected()
    spares_fast_tier: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the entry of GET /sim/scenarios."""
        return {
            "name": self.name,
            "description": self.description,
            "options": {name: self.defaults.get(name) for name in self.options},
            "expected": asdict(self.expected),
            "spares_fast_tier": self.spares_fast_tier,
        }
