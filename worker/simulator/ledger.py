"""Counts the simulator's requests and what they cost, for GET /sim/calls.

It must not depend on scenarios or the wire, and never keeps a prompt: only a digest of it.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

MAX_CALLS_KEPT = 1000


@dataclass(slots=True)
class Call:
    """One HTTP request to /v1; `status` stays None until the answer's head is written."""

    method: str
    path: str
    request_id: str
    client_request_id: str | None
    retry_count: str | None
    started_at: str
    kind: str = "other"
    model: str | None = None
    scenario: str | None = None
    response_id: str | None = None
    safety_identifier: str | None = None
    stream: bool = False
    background: bool = False
    status: int | None = None
    ended: str | None = None  # completed | failed | incomplete | cut | aborted | error
    input_sha256: str | None = None
    items: int | None = None  # of the input, if it is a list
    items_sha256: str | None = None  # of that list as compact JSON with sorted keys


@dataclass(slots=True)
class Ledger:
    """All counts since the start or the last reset."""

    kinds: Counter[str] = field(default_factory=Counter)
    by_model: Counter[str] = field(default_factory=Counter)
    by_scenario: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    open_streams: int = 0
    aborted: int = 0
    cut: int = 0
    limited: int = 0  # refused because of the rates
    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=MAX_CALLS_KEPT))

    def begin(self, call: Call) -> None:
        """Record a request that just came in."""
        call.started_at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self.kinds[call.kind] += 1
        self.calls.append(call)

    def chosen(self, model: str, scenario: str) -> None:
        """Count a create by its model and the scenario that it really gets."""
        self.by_model[model] += 1
        self.by_scenario[scenario] += 1

    def reset(self) -> None:
        """Forget everything but the streams that are still open."""
        for counter in (self.kinds, self.by_model, self.by_scenario):
            counter.clear()
        self.calls.clear()
        self.input_tokens = self.output_tokens = self.aborted = self.cut = self.limited = 0

    def as_json(self) -> dict[str, Any]:
        """Return the answer of GET /sim/calls."""
        names = ("creates", "resumes", "polls", "cancels", "deletes", "models", "chats", "counts", "compactions")
        return {
            **{name: self.kinds[name] for name in names},
            "tokens_billed": {"input": self.input_tokens, "output": self.output_tokens},
            "open_streams": self.open_streams,
            "aborted": self.aborted,
            "cut": self.cut,
            "limited": self.limited,
            "by_model": dict(self.by_model),
            "by_scenario": dict(self.by_scenario),
            "calls": [asdict(call) for call in self.calls],
        }
