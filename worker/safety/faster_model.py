"""Chooses the faster model that may replace one that a check delays; shared by every action of the delay rule.

Pure: denied models are an argument.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from worker.jobs.catalogue import Catalogue
from worker.jobs.states import RetryModelState
from worker.safety.served_model import base_name

NoFasterModelReason = Literal[
    "provider_said_none", "no_faster_tier", "same_model", "denied", "unknown_model", "effort_refused"
]


@dataclass(frozen=True, slots=True)
class FasterModel:
    """The faster model, by its name in models.toml if it is listed there."""

    model: str


@dataclass(frozen=True, slots=True)
class NoFasterModel:
    """There is no faster model; `reason` names the rule."""

    reason: NoFasterModelReason


def faster_model(
    requested: str,
    on_delay_model: str | None,
    retry_model: str | None,
    retry_model_state: RetryModelState,
    catalogue: Catalogue,
    denied: Collection[str] = (),
    *,
    running: str | None = None,
    effort: str | None = None,
    allow_unknown: bool = False,
) -> FasterModel | NoFasterModel:
    """Return the model that would take over from `requested`, or why none may.

    The app's own `on_delay.model` wins. Without it the provider's `retry_model` counts, and an explicit null means
    none; only if the provider named nothing, models.toml decides. A chosen model that can't be used is not replaced by
    a third one that nobody chose. `running`: the model of the delayed attempt if a fallback has moved it to another
    one. `effort`: the request's reasoning effort, which some models refuse. Dates, case and aliases make no different
    model.
    """
    if on_delay_model is not None:
        name: str | None = on_delay_model
    elif retry_model_state is RetryModelState.NONE:
        return NoFasterModel("provider_said_none")
    elif retry_model_state is RetryModelState.NAMED and retry_model:
        name = retry_model
    else:
        name = catalogue.faster(_catalogue_id(running or requested, catalogue) or running or requested)
    if name is None:
        return NoFasterModel("no_faster_tier")
    bare = base_name(name, catalogue.aliases)
    if bare in {base_name(other, catalogue.aliases) for other in (requested, running) if other is not None}:
        return NoFasterModel("same_model")
    if bare in {base_name(other, catalogue.aliases) for other in denied}:
        return NoFasterModel("denied")
    known = _catalogue_id(name, catalogue)
    if known is None and not allow_unknown:
        return NoFasterModel("unknown_model")
    if catalogue.refuses_effort(known or name, effort):
        return NoFasterModel("effort_refused")
    return FasterModel(known or name)


def _catalogue_id(name: str, catalogue: Catalogue) -> str | None:
    """Return the model's id in models.toml, looked up as written or without its date and case, or None."""
    model = catalogue.find(name) or catalogue.find(base_name(name, catalogue.aliases))
    return model.id if model else None
