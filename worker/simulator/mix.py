"""Draws scenarios from a weighted table, for load: `--mix FILE` with `--seed`.

It must not depend on requests; a table is read and checked once, at the start.
"""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .directive import Directive, DirectiveError, parse
from .plan import resolve

MixTable = Sequence[Mapping[str, Any]]


class MixError(ValueError):
    """The table can't be used; the message names the entry and the reason."""


class Mix:
    """A weighted choice of directives; the same seed gives the same sequence."""

    def __init__(self, table: MixTable, seed: int | None = None) -> None:
        """Check every entry: {"scenario" or "directive": text, "weight": number, option: value ...}."""
        self._rng = random.Random(seed)  # noqa: S311 - load, not secrets
        self._directives = [_directive(index, entry) for index, entry in enumerate(table)]
        self._weights = [_weight(index, entry) for index, entry in enumerate(table)]
        if not self._directives or not sum(self._weights) > 0:
            raise MixError("The mix needs at least one entry with a weight above 0.")

    def draw(self) -> Directive:
        """Return the next directive."""
        return self._rng.choices(self._directives, self._weights)[0]


def load(path: str | Path) -> list[Mapping[str, Any]]:
    """Return the table in a TOML or JSON file: a list, or a `mix` list in it."""
    try:
        text = Path(path).read_text("utf-8")
        data = tomllib.loads(text) if str(path).endswith(".toml") else json.loads(text)
    except OSError as error:
        raise MixError(f"Can't read the mix {path}: {error.strerror}.") from None
    except ValueError as error:
        raise MixError(f"The mix {path} isn't valid: {error}.") from None
    table = data.get("mix") if isinstance(data, dict) else data
    if not isinstance(table, list) or not all(isinstance(entry, dict) for entry in table):
        raise MixError(f"The mix {path} must hold a list of tables named `mix`.")
    return table


def _directive(index: int, entry: Mapping[str, Any]) -> Directive:
    text = entry.get("directive") or entry.get("scenario")
    if not isinstance(text, str):
        raise MixError(f"Mix entry {index + 1} needs a `scenario` or a `directive`.")
    inner = text.strip().removeprefix("[[sim:").removesuffix("]]")
    options = [
        f"{key}={int(value) if isinstance(value, bool) else value}"
        for key, value in entry.items()
        if key not in {"directive", "scenario", "weight"}
    ]
    try:
        found = parse(" ".join([inner, *options]))
        resolve(found, "any")
    except DirectiveError as error:
        raise MixError(f"Mix entry {index + 1}: {error}") from None
    return found


def _weight(index: int, entry: Mapping[str, Any]) -> float:
    weight = entry.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
        raise MixError(f"Mix entry {index + 1}: `weight` must be a number of 0 or more.")
    return float(weight)
