"""The jobs of `vigil demo`, one per outcome, with the expected result of each, and the comparison with the real one.

The expected results come from the simulator's table of scenarios.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from worker.simulator.scenarios import SCENARIOS

SPEED: Final = 20.0
"""The simulator's speed: its longest silence (60 s) takes 3 s."""
_SILENCE: Final = {"on_delay": {"action": "wait", "silence_seconds": 1.0}}


@dataclass(frozen=True, slots=True)
class DemoCase:
    """One job. `cancel`: the demo cancels it. `last`: it stops the account, so it is submitted after the others."""

    title: str
    scenario: str
    options: str = ""
    policy: Mapping[str, Any] = field(default_factory=dict)
    want: Mapping[str, Any] = field(default_factory=dict)
    cancel: bool = False
    last: bool = False

    @property
    def directive(self) -> str:
        """Return the prompt."""
        return f"[[sim: {' '.join(part for part in (self.scenario, self.options) if part)}]] Why is the sky blue?"

    def expected(self) -> dict[str, Any]:
        """Return the expected status, and where they matter outcome, block, carrier, check, disclosure, reason."""
        scenario_result = SCENARIOS[self.scenario].expected
        by_table = {
            "status": scenario_result.status,
            "outcome": scenario_result.outcome,
            "block": scenario_result.block,
            "carrier": scenario_result.carrier,
            "check": scenario_result.check,
        }
        return {name: value for name, value in {**by_table, **self.want}.items() if value is not None}


CASES: Final = (
    DemoCase("an answer", "normal"),
    DemoCase("checked, then cleared", "check_then_clear"),
    DemoCase("checked, then blocked", "check_then_block"),
    DemoCase(
        "checked, Luna takes over",
        "check_then_clear",
        "hold=200",
        {"on_delay": {"action": "switch", "after_seconds": 1}},
        {"outcome": "substituted", "disclosure": "safety_check_delay"},
    ),
    DemoCase("silence, then an answer", "silent_delay", "", _SILENCE),
    DemoCase("silence, then blocked", "silent_block", "", _SILENCE),
    DemoCase("blocked before any output", "block_before_stream"),
    DemoCase("biology block", "bio_block"),
    DemoCase("misalignment", "misalignment"),
    DemoCase("content filter", "content_filter"),
    DemoCase("the model declines", "refusal"),
    DemoCase("cut by the token limit", "max_tokens", "", {}, {"reason": "max_output_tokens"}),
    DemoCase("model not granted", "model_not_found"),
    DemoCase(
        "… another model answers",
        "model_not_found",
        "only=gpt-5.6-sol",
        {},
        {"status": "completed", "disclosure": "access_denied"},
    ),
    DemoCase("wrong project", "wrong_project"),
    DemoCase("unsupported region", "region"),
    DemoCase("rate limit, then fine", "rate_limited", "times=1"),
    DemoCase("overloaded, then fine", "overloaded", "times=1"),
    DemoCase("overloaded in the stream", "overloaded_in_stream"),
    DemoCase("server error, then fine", "server_error"),
    DemoCase("connection cut, resumed", "cut"),
    DemoCase("provider rerouted", "rerouted", "", {}, {"disclosure": "provider_reroute"}),
    DemoCase("cancelled", "queued_forever", "", {}, {"status": "cancelled", "outcome": "cancelled"}, cancel=True),
    DemoCase("deadline passed", "queued_forever", "", {"run_deadline_seconds": 3}),
    # These concern the whole account. Only the first job of a circuit is tried; held jobs expire.
    DemoCase(
        "wrong organization", "wrong_organization", "", {"queue_deadline_seconds": 3}, {"outcome": None}, last=True
    ),
    DemoCase("quota exhausted", "quota", "", {"queue_deadline_seconds": 3}, {"outcome": None}, last=True),
)


def observed(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a job, under the names of `DemoCase.expected`."""
    safety = job.get("safety") or {}
    block, checks, attempts = safety.get("block") or {}, safety.get("checks") or [], job.get("attempts") or []
    return {
        "status": job["status"],
        "reason": job.get("reason"),
        "outcome": attempts[0].get("outcome") if attempts else None,
        "block": block.get("category"),
        "carrier": block.get("carrier"),
        "check": checks[0].get("evidence") if checks else None,
        "disclosure": (job.get("disclosure") or {}).get("reason"),
    }


def find_mismatch(case: DemoCase, job: Mapping[str, Any] | None) -> str | None:
    """Return how the job's result differs from the expected one, or None if it does not."""
    if job is None:
        return "it was not accepted"
    found = observed(job)
    wrong = [f"{name} is {found[name]}, not {value}" for name, value in case.expected().items() if found[name] != value]
    if job["status"] == "blocked" and (job.get("output_text") or job.get("draft")):
        wrong.append("a blocked job delivered text")
    served = job.get("served_model")
    if served and served != job["requested_model"] and not job.get("disclosure"):
        wrong.append("another model answered without a disclosure")
    return "; ".join(wrong) or None
