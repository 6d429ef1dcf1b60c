"""Which faster model may stand in for one that a check delays; shared by every action of the delay rule.

Pure. Must not know: time, checks, what is done with the model; who is denied comes as an argument.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from worker.jobs.catalogue import Catalogue
from worker.jobs.states import RetryModelState
from worker.safety.served_model import base_name

NoFasterModelReason = Literal["provider_said_none", "no_faster_tier", "same_model", "denied", "unknown_model"]


@dataclass(frozen=True, slots=True)
class FasterModel:
    """The faster model, by its name in models.toml where it stands there."""

    model: str


@dataclass(frozen=True, slots=True)
class NoFasterModel:
    """There is none; `reason` says which rule forbids it."""

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
    allow_unknown: bool = False,
) -> FasterModel | NoFasterModel:
    """The model that would take over from `requested`, or why none may.

    The app's own `on_delay.model` holds whatever the provider suggests; without one the provider's word counts: its
    `retry_model`, or none at all when it said null; only its silence leaves the choice to models.toml. A model that
    was chosen and can't be used is not replaced by a third one that nobody chose. `running`: the model of the
    delayed attempt when a fallback has put it on another one. Dates, case and aliases make no different model.
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
    return FasterModel(known or name)


def _catalogue_id(name: str, catalogue: Catalogue) -> str | None:
    """The model's id in models.toml, found as it is written or without its date and case."""
    model = catalogue.find(name) or catalogue.find(base_name(name, catalogue.aliases))
    return model.id if model else None
