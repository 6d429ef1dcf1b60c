"""Which model really answered (wire.md section 5). A verdict is a flag on a result, never an error by itself.

Must not know: prices, tiers, policies. The alias map comes as an argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_DATED: Final = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_MAX_LENGTH: Final = 200
_MAX_ALIAS_HOPS: Final = 4  # aliases of aliases; a bound, so that a circle in the map can't hang us


@dataclass(frozen=True, slots=True)
class ServedVerdict:
    """The served model, in the requested spelling when it is the same one; `raw` is what was seen, for the audit."""

    served_model: str | None  # None: nobody named one
    raw: dict[str, str] = field(default_factory=dict)
    rerouted: bool = False
    conflict: bool = False


def base_name(model: str, aliases: Mapping[str, str] | None = None) -> str:
    """The name without date and case, with aliases followed: equal bases are the same model."""
    name = _DATED.sub("", model.strip().lower())
    lower = {_DATED.sub("", key.strip().lower()): value for key, value in (aliases or {}).items()}
    for _ in range(_MAX_ALIAS_HOPS):
        if name not in lower:
            break
        name = _DATED.sub("", lower[name].strip().lower())
    return name


def judge_served(
    requested: str,
    header: str | None = None,
    created: str | None = None,
    terminal: str | None = None,
    aliases: Mapping[str, str] | None = None,
) -> ServedVerdict:
    """Who served, told by the transport's header, the terminal snapshot and (only when both are silent) the first one.

    Either of the first two is enough to call it rerouted; the terminal's name is preferred. `conflict`: the sources
    name different models.
    """
    seen = {"header": header, "created": created, "terminal": terminal}
    raw = {name: value.strip()[:_MAX_LENGTH] for name, value in seen.items() if value and value.strip()}
    if not raw:
        return ServedVerdict(None)
    wanted = base_name(requested, aliases)
    bases = {name: base_name(value, aliases) for name, value in raw.items()}
    strong = [bases[name] for name in ("terminal", "header") if name in bases] or [bases["created"]]
    others = [name for name in strong if name != wanted]
    return ServedVerdict(
        served_model=others[0] if others else requested,
        raw={"requested": requested, **raw},
        rerouted=bool(others),
        conflict=len(set(bases.values())) > 1,
    )
