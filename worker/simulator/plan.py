"""Resolves what will happen to one request: a scenario's defaults and a directive's options in one flat value.

Pure. It must not depend on HTTP, the wire's JSON or time; the counting behind `times` lives in world.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .directive import Directive, DirectiveError
from .scenario import Scenario
from .scenarios import SCENARIOS, listing

TOO_OLD_AFTER = 300.0  # seconds after which a stream can't be resumed (wire.md section 7)


@dataclass(frozen=True, slots=True)
class Plan:
    """Every setting of one response; a directive's options and a scenario's defaults share these names."""

    scenario: str = "normal"
    # -- pace, in seconds before --speed divides them
    hold: float = 0.0
    keepalive: float = 0.0
    queue: float = 0.5
    latency: float = 0.6
    rate: float = 40.0
    # -- the answer
    tokens: int = 20
    partial: int = 0
    tool: bool = False
    uses: str = ""  # a kind of tool that it uses: custom | shell | apply_patch
    name: str = ""  # the tools that it calls, one a round, comma separated
    calls: int = 1  # calls at once
    rounds: int = 0  # rounds of calls before the message; 0 = one for each name, at least one
    command: str = ""
    reasoning: bool = False
    adds_tools: bool = False
    json: bool = False
    counts_inputs: bool = False
    text: str | None = None  # a given answer instead of the pleasant one
    refusal: bool = False
    # -- the check's announcement
    signal: str = "none"
    repeats: int = 0
    again: float = 0.0  # seconds of a second check, in the middle of the output
    use_case: str = "cyber"
    reason: str = "user_risk"
    retry_model: str = "gpt-5.6-luna"
    shape: str = ""  # what the object has: see buffering.py; with one, a chat stream has a signal too
    flagged: bool = False  # the account is recommended for verification
    # -- the failure
    carrier: str | None = None
    code: str = "server_error"
    form: str = "plain"  # how the error object is written: see error_forms.py
    param: str = ""  # of the error
    quote: int = 0  # words of the prompt that its message repeats
    wrap: str = ""  # how a gateway passes an error on: litellm | prose | sse | object
    retry_after: float = 0.0
    stuck: bool = False  # queued for ever
    stream_only: bool = False  # the failure concerns only requests with stream=true
    # -- the connection
    how: str | None = None
    after: int = 6
    resume: str = "ok"
    looks: str = "ok"  # what a GET of the response is answered with for a while
    look_hold: float = 0.0  # seconds of that while, from the create on
    # -- odd but legal streams
    trailing: int = 1  # 0 none, 1 the usual rate_limits.updated, 2 several
    twice: bool = False  # a second terminal event
    gap: bool = False  # sequence numbers are skipped
    odd: str = ""  # a shape of wire_shapes.py
    noise: bool = False  # comments, unknown types, an event without a type
    removed: int = 0  # reasoning items removed from the input
    unfiltered: bool = False  # the provider's content filter was not available
    cache_write: int = 0  # input tokens written to the prompt cache
    # -- who serves
    served: str | None = None
    route: str | None = None  # header | conflict | alias
    org: str | None = None
    # -- what the safety team tells by webhook
    notify: str = ""
    # -- to whom it applies
    times: int = 0
    only: str | None = None
    any: bool = False
    drawn: bool = False  # chosen by --mix: `times` doesn't count, a cut hits only the first connection

    def as_normal(self) -> Plan:
        """Return the ordinary answer that takes this plan's place, with the same length and pace."""
        kept = ("tokens", "rate", "latency", "queue", "tool", "uses", "name", "calls", "rounds", "command", "reasoning")
        return Plan(**{name: getattr(self, name) for name in kept})

    def labels(self, kind: str) -> list[str]:
        """Return the check's `use_case` or `reason` as the list on the wire."""
        return [word for word in (self.use_case if kind == "use_case" else self.reason).split(",") if word]

    @property
    def http_status(self) -> int | None:
        """Return the status of a failure before the stream: 0 = the code's own, None = no such failure."""
        if self.carrier is None or not self.carrier.startswith("http"):
            return None
        return int(self.carrier[5:] or 0)


_NAMES = frozenset(item.name for item in fields(Plan))


def resolve(directive: Directive, model: str) -> Plan:
    """Return the plan for a directive and the request's model; DirectiveError for an unknown scenario."""
    scenario = SCENARIOS.get(directive.scenario)
    if scenario is None:
        known = ", ".join(SCENARIOS)
        raise DirectiveError(f"Unknown scenario {directive.scenario[:64]!r}; known scenarios: {known}.")
    plan = _build(scenario, directive.options)
    if not _applies(scenario, plan, model):
        return plan.as_normal()
    return plan


def _build(scenario: Scenario, options: Mapping[str, Any]) -> Plan:
    values: dict[str, Any] = {**scenario.defaults, **options, "scenario": scenario.name}
    if scenario.name == "list":
        values |= {"text": listing(), "latency": 0.0, "rate": 1000.0}
    if scenario.name == "max_tokens" and "partial" not in options:
        values["partial"] = values.get("tokens", 20)
    if "code" in options and values.get("carrier") is None:
        values["carrier"] = "response_failed"
    if "served" in options and "route" not in values:
        values["route"] = "header"
    if "after" in options and values.get("how") is None:
        values["how"] = "rst"
    unknown = values.keys() - _NAMES
    if unknown:  # a fault of scenarios.py, found by the tests
        raise DirectiveError(f"Unknown options {sorted(unknown)}.")
    return Plan(**values)


def _applies(scenario: Scenario, plan: Plan, model: str) -> bool:
    if plan.only is not None:
        return model == plan.only
    lowered = model.lower()
    fast = "luna" in lowered or "mini" in lowered
    return plan.any or not (fast and scenario.spares_fast_tier)
