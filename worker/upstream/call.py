"""Defines the data of one upstream call; the worker builds it from the record and the stored content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from worker.safety.endpoint import Mode

__all__ = ["OWNED_PARAMS", "Mode", "UpstreamCall"]

OWNED_PARAMS: frozenset[str] = frozenset(
    {"model", "input", "instructions", "stream", "background", "store", "safety_identifier", "user"}
)
"""Keys of `params` that Vigil owns: dropped, never passed on."""


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """One request to one model. `repr` shows no content."""

    model: str
    mode: Mode
    client_request_id: str
    input: str | list[Any] = field(repr=False)
    instructions: str | None = field(default=None, repr=False)
    params: dict[str, Any] = field(default_factory=dict, repr=False)
    safety_identifier: str | None = None
    store: bool = True
