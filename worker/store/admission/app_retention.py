"""How long what belongs to an app is kept, within the bounds of the deployment: answers, prompts, audit records.

Answers and prompts may go sooner than the settings say, never later. Audit records may stay longer, up to a maximum of
its own, and never go sooner: the trail is removed by whole checkpoints, which hold the records of all apps.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final, Literal, NamedTuple

from worker.jobs.errors import Refused
from worker.settings import Settings

Kind = Literal["result", "prompt", "audit"]
KINDS: Final[tuple[Kind, ...]] = ("result", "prompt", "audit")
_MIN_RESULT_S: Final = 60


class Bounds(NamedTuple):
    """The least and most seconds that an app may have, and what it has without a time of its own."""

    least: int
    most: int
    default: int


@dataclass(frozen=True, slots=True)
class AppRetention:
    """An app's own times in seconds; None = what the settings say."""

    result: int | None = None
    prompt: int | None = None
    audit: int | None = None


NOTHING_OWN: Final = AppRetention()


def bounds_of(settings: Settings) -> dict[Kind, Bounds]:
    """Return what apps may have in this deployment."""
    result, audit = settings.result_ttl, max(settings.audit_ttl, settings.result_ttl)
    prompt = result if settings.prompt_ttl is None else min(settings.prompt_ttl, result)
    longest = max(audit, settings.audit_max_ttl or 0)
    return {
        "result": Bounds(_MIN_RESULT_S, result, result),
        "prompt": Bounds(0, prompt, prompt),
        "audit": Bounds(audit, longest, audit),
    }


def effective(own: AppRetention, settings: Settings) -> dict[Kind, int]:
    """Return the seconds that apply; settings that were narrowed later win, and no prompt outlives its answer."""
    found = dict[Kind, int]()
    for kind, bounds in bounds_of(settings).items():
        wanted: int | None = getattr(own, kind)
        found[kind] = bounds.default if wanted is None else min(max(wanted, bounds.least), bounds.most)
    return found | {"prompt": min(found["prompt"], found["result"])}


def check(own: AppRetention, settings: Settings) -> None:
    """Raise Refused (422) for a time out of its bounds."""
    names = {"result": "VIGIL_RESULT_TTL", "prompt": "VIGIL_PROMPT_TTL, VIGIL_RESULT_TTL"}
    for kind, bounds in bounds_of(settings).items():
        wanted: int | None = getattr(own, kind)
        if wanted is not None and not bounds.least <= wanted <= bounds.most:
            named = names.get(kind, "VIGIL_AUDIT_TTL, VIGIL_AUDIT_MAX_TTL")
            detail = f"{kind} must be {bounds.least} to {bounds.most} seconds in this deployment ({named})."
            raise Refused("retention_out_of_bounds", detail, 422)


def kept_times(own: AppRetention, settings: Settings) -> str:
    """Return what scripts read of an app's own times, "<result> <prompt>" in seconds; "" if it has none."""
    if own.result is None and own.prompt is None:
        return ""
    times = effective(own, settings)
    return f"{times['result']} {times['prompt']}"


def dump(own: AppRetention) -> dict[str, int] | None:
    """Encode the times for the app's record; None if there are none."""
    return {kind: seconds for kind, seconds in asdict(own).items() if seconds is not None} or None


def load(app: bytes | None) -> AppRetention | None:
    """Decode the times of an app's record; None if there are none."""
    stored = json.loads(app).get("retention") if app else None
    if stored is None:
        return None
    return AppRetention(**{kind: None if stored.get(kind) is None else int(stored[kind]) for kind in KINDS})
