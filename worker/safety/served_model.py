"""Determines which model really answered (wire.md section 5). A mismatch is a flag on a result, not an error by itself.

It must not depend on prices, tiers or policies; the alias map is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_DATED: Final = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_MAX_LENGTH: Final = 200
_MAX_ALIAS_HOPS: Final = 4  # aliases of aliases; bounded because the map may have a circle


@dataclass(frozen=True, slots=True)
class ServedVerdict:
    """The served model, in the requested spelling if it is the same one; `raw` has the names as sent, for the audit."""

    served_model: str | None  # None: the provider named none
    raw: dict[str, str] = field(default_factory=dict)
    rerouted: bool = False
    conflict: bool = False


def base_name(model: str, aliases: Mapping[str, str] | None = None) -> str:
    """Return the name without date and case, aliases resolved: models with equal base names are the same."""
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
    """Return who served, from the response header, the terminal snapshot and (only without both) the first snapshot.

    Either of the first two is enough to call the request rerouted; the terminal's name is preferred. `conflict`: the
    sources name different models.
    """
    names = {"header": header, "created": created, "terminal": terminal}
    raw = {name: value.strip()[:_MAX_LENGTH] for name, value in names.items() if value and value.strip()}
    if not raw:
        return ServedVerdict(None)
    requested_base = base_name(requested, aliases)
    bases = {name: base_name(value, aliases) for name, value in raw.items()}
    strong = [bases[name] for name in ("terminal", "header") if name in bases] or [bases["created"]]
    others = [name for name in strong if name != requested_base]
    return ServedVerdict(
        served_model=others[0] if others else requested,
        raw={"requested": requested, **raw},
        rerouted=bool(others),
        conflict=len(set(bases.values())) > 1,
    )
