"""The policy of a job, as `submit` and `batch` take it: delay rules, fallback, limits.

The server checks a policy again. The fields, limits and defaults here are those of the API; a test compares them with
the server's model.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema

Action = Literal["wait", "offer", "switch", "race", "draft"]
Priority = Literal["low", "default", "high"]
ModelName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f\x7f]+$")]
Seconds = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]


def _to_decimal(value: object, info: ValidationInfo) -> object:
    """Convert a number to exact money; text is money in JSON only, as a dumped policy has it."""
    if isinstance(value, bool) or (isinstance(value, str) and info.mode != "json"):
        raise ValueError("money is a number")
    return Decimal(str(value)) if isinstance(value, int | float | str) else value


Money = Annotated[
    Decimal,
    BeforeValidator(_to_decimal),
    Field(ge=0, le=1_000_000, allow_inf_nan=False),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1_000_000}, mode="validation"),
]


class _StrictModel(BaseModel):
    """The base: strict, frozen, without unknown fields; errors never quote a value."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class OnDelay(_StrictModel):
    """What to do when a safety check delays the answer."""

    action: Action = "offer"
    after_seconds: Seconds = 45.0
    silence_seconds: Seconds = 120.0
    """Silence that counts like a check; 0 = never act on silence.

    Left out: 120 until 200 calls of the model were measured, then what is unusual for it.
    """
    model: ModelName | None = None
    """None = the provider's retry_model, else the fast tier of the same family."""


class Policy(_StrictModel):
    """How one job may be retried, rerouted and bounded. Delay rules and error rules are separate."""

    on_delay: OnDelay = OnDelay()
    fallback: Literal["default"] | Annotated[tuple[ModelName, ...], Field(max_length=10, strict=False)] = "default"
    """For access denials only: the chain in the server's models.toml, a list of models, or none at all."""
    require_model: bool = False
    max_attempts: Annotated[int, Field(ge=1, le=50)] = 5
    queue_deadline_seconds: Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)] | None = None
    run_deadline_seconds: Annotated[float, Field(gt=0, le=604_800, allow_inf_nan=False)] = 3600.0
    max_cost_usd: Money | None = None
