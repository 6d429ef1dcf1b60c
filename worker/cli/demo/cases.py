"""The jobs of `vigil demo`: one per outcome, what is asked for and what should come of it. Pure data and pure judging.

What should come of it stands in the simulator's table of scenarios, in the words of the contract.
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
    """One job. `last`: it closes the whole account, so it goes when the others have ended. `cancel`: we cancel it."""

    title: str
    scenario: str
    options: str = ""
    policy: Mapping[str, Any] = field(default_factory=dict)
    want: Mapping[str, Any] = field(default_factory=dict)
    cancel: bool = False
    last: bool = False

    @property
    def directive(self) -> str:
        """The prompt."""
        return f"[[sim: {' '.join(word for word in (self.scenario, self.options) if word)}]] Why is the sky blue?"

    def expected(self) -> dict[str, Any]:
        """What should come of it: status, and where they matter outcome, block, carrier, check, disclosure, reason."""
        told = SCENARIOS[self.scenario].expected
        by_table = {
            "status": told.status,
            "outcome": told.outcome,
            "block": told.block,
            "carrier": told.carrier,
            "check": told.check,
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
    DemoCase("blocked at the door", "block_before_stream"),
    DemoCase("biology block", "bio_block"),
    DemoCase("misalignment", "misalignment"),
    DemoCase("content filter", "content_filter"),
    DemoCase("the model declines", "refusal"),
    DemoCase("cut by the token limit", "max_tokens", "", {}, {"reason": "max_output_tokens"}),
    DemoCase("model not granted", "model_not_found"),
    DemoCase(
        "… another stands in",
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
    # These say something about the whole account. Only the first of a circuit is tried; held jobs expire.
    DemoCase(
        "wrong organization", "wrong_organization", "", {"queue_deadline_seconds": 3}, {"outcome": None}, last=True
    ),
    DemoCase("quota exhausted", "quota", "", {"queue_deadline_seconds": 3}, {"outcome": None}, last=True),
)


def seen(job: Mapping[str, Any]) -> dict[str, Any]:
    """What came of a job, under the names of `Case.expected`."""
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


def judge(case: DemoCase, job: Mapping[str, Any] | None) -> str | None:
    """What is wrong with a job's end, in words; None when it came out as it should."""
    if job is None:
        return "it was never accepted"
    found = seen(job)
    wrong = [f"{name} is {found[name]}, not {value}" for name, value in case.expected().items() if found[name] != value]
    if job["status"] == "blocked" and (job.get("output_text") or job.get("draft")):
        wrong.append("a blocked job gave text away")
    served = job.get("served_model")
    if served and served != job["requested_model"] and not job.get("disclosure"):
        wrong.append("another model served and it was not said")
    return "; ".join(wrong) or None
