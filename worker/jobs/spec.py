"""Defines the policy that a caller may send with a job, and its limits.

Input from outside, so the models are strict, frozen and refuse unknown fields. Defaults are those of the contract.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationInfo, WithJsonSchema

Action = Literal["wait", "offer", "switch", "race", "draft"]
Priority = Literal["low", "default", "high"]
PayloadKind = Literal["thin", "full", "openai"]
ModelName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f\x7f]+$")]
Seconds = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]


def _money(value: object, info: ValidationInfo) -> object:
    """Convert a caller's JSON number to exact money; a decimal string is accepted from our own records only."""
    if isinstance(value, bool) or (isinstance(value, str) and info.mode != "json"):
        msg = "money is a number"
        raise ValueError(msg)
    return Decimal(str(value)) if isinstance(value, int | float | str) else value


Money = Annotated[
    Decimal,
    BeforeValidator(_money),
    Field(ge=0, le=1_000_000, allow_inf_nan=False),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1_000_000}, mode="validation"),
]


class Spec(BaseModel):
    """The base of everything that a caller sends: strict, frozen, no unknown fields; errors never echo a value."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


SILENCE: Final = "silence"
MEASURED: Final = "measured"
"""The member of a job's `optional` that says that its app left `silence_seconds` out, and its value."""


class OnDelay(Spec):
    """What to do when a safety check delays the answer."""

    action: Action = "offer"
    after_seconds: Seconds = 45.0
    silence_seconds: Seconds = 120.0
    """Silence after which the rule acts as on a check; 0 = never act on silence.

    Left out: 120 until 200 calls of the model were measured, then what is unusual for it.
    """
    model: ModelName | None = None
    """None = the provider's retry_model, else the fast tier of the same family."""


class Policy(Spec):
    """The limits for retries, rerouting, time and cost. Delay rules and error rules are separate."""  # promise P2

    on_delay: OnDelay = OnDelay()
    fallback: Literal["default"] | Annotated[tuple[ModelName, ...], Field(max_length=10, strict=False)] = "default"
    """For access denials only: the chain in models.toml, a list of models, or none at all."""
    require_model: bool = False
    max_attempts: Annotated[int, Field(ge=1, le=50)] = 5
    queue_deadline_seconds: Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)] | None = None
    run_deadline_seconds: Annotated[float, Field(gt=0, le=604_800, allow_inf_nan=False)] = 3600.0
    max_cost_usd: Money | None = None


def optional_fields(policy: Policy, group: str | None) -> dict[str, JsonValue]:
    """Return what the record of a new job keeps of its request that older releases may ignore."""
    silence = {} if "silence_seconds" in policy.on_delay.model_fields_set else {SILENCE: MEASURED}
    return {**silence, **({"group": group} if group is not None else {})}
