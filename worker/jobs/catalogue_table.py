"""Reads the tables of a parsed models.toml, strictly: every fault is one line, and all faults are reported together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any, Final, get_args

from worker.jobs.model import Family, Model, Tier
from worker.jobs.price_rows import PRICE_KEYS, PriceRowFault, parse_rows, parse_terms, undated_row
from worker.jobs.pricing import PriceRow

_TOP_KEYS: Final = frozenset({"terms", "families", "models"})
_FAMILY_KEYS: Final = frozenset(Family.model_fields)
_MODEL_KEYS: Final = frozenset({*Model.model_fields, "input", "output", "cached_input"} - {"id"})
_SHAPES: Final[dict[str, str]] = {
    "family": "a name",
    "tier": f"one of {', '.join(get_args(Tier))}",
    "checked": "true or false",
    "aliases": "a list of names",
    "fallback": "a list of models",
    "fast": "a model",
    "efforts_refused": "a list of efforts",
    "context_tokens": "a number of tokens",
    "max_output_tokens": "a number of tokens",
    "shutdown_date": "a date such as 2027-02-01",
    "rpm": "a number of calls a minute",
    "tpm": "a number of tokens a minute",
    "max_concurrent": "a number of jobs",
}


def read_table(table: Mapping[str, Any]) -> tuple[dict[str, Model], dict[str, Family], list[str]]:
    """Return models and families by name, and every fault."""
    faults = [
        f"models.toml: unknown key {name!r}; known: families, models, terms" for name in sorted(set(table) - _TOP_KEYS)
    ]
    terms: dict[str, dict[str, Any]] = {}
    for name, sent in _tables(table, "terms", faults).items():
        try:
            terms[name] = parse_terms(sent)
        except PriceRowFault as fault:
            terms[name] = {}
            faults.append(f"models.toml: terms {name!r}: {fault}")
    families: dict[str, Family] = {}
    for name, sent in _tables(table, "families", faults).items():
        if (fields := _fields(sent, _FAMILY_KEYS, f"family {name!r}", faults)) is not None:
            families[name] = Family(**fields)
    models: dict[str, Model] = {}
    for name, sent in _tables(table, "models", faults).items():
        if (model := _model(name, sent, terms, faults)) is not None:
            models[name] = model
            families.setdefault(model.family, Family())
    faults += _references(models, families)
    if not models and not faults:
        faults.append("models.toml: there is no [models.…] table")
    return models, families, faults


def _model(name: str, sent: object, terms: Mapping[str, Mapping[str, Any]], faults: list[str]) -> Model | None:
    what = f"model {name!r}"
    if not name or any(character.isspace() or not character.isprintable() for character in name):
        faults.append(f"models.toml: {what}: a name has no spaces and is not empty")
        return None
    fields = _fields(sent, _MODEL_KEYS, what, faults)
    if fields is None:
        return None
    beside: dict[str, Any] = {key: fields.pop(key) for key in PRICE_KEYS if key in fields}
    rows: tuple[PriceRow, ...] = ()
    found: list[str] = []
    if "prices" in fields:
        rows, found = parse_rows(fields.pop("prices"), terms)
        if beside:
            found.append(f"`{next(iter(beside))}` stands beside `prices`: give the prices in rows only")
    elif beside:
        try:
            rows = (undated_row(beside),)
        except PriceRowFault as fault:
            found.append(str(fault))
    faults += [f"models.toml: {what}: {one}" for one in found]
    return None if found else Model(id=name, **{"family": name, **fields}, prices=rows)


def _fields(sent: object, known: frozenset[str], what: str, faults: list[str]) -> dict[str, Any] | None:
    """Return the keys of a model or family with values of the right shape; None if any has another."""
    if not isinstance(sent, Mapping):
        faults.append(f"models.toml: {what} is no table")
        return None
    wrong = [f"unknown key {key!r}; known: {', '.join(sorted(known))}" for key in sorted(set(sent) - known)][:1]
    wrong += [f"`{key}` is {_SHAPES[key]}" for key, value in sent.items() if key in known and not _fits(key, value)]
    faults += [f"models.toml: {what}: {one}" for one in wrong]
    if wrong:
        return None
    return {key: tuple(value) if isinstance(value, list) and key != "prices" else value for key, value in sent.items()}


def _fits(key: str, value: object) -> bool:
    match key:
        case "tier":
            return value in get_args(Tier)
        case "checked":
            return isinstance(value, bool)
        case "family" | "fast":
            return _is_name(value)
        case "aliases" | "fallback" | "efforts_refused":
            return isinstance(value, list) and all(_is_name(one) for one in value) and len(set(value)) == len(value)
        case "context_tokens" | "max_output_tokens" | "rpm" | "tpm" | "max_concurrent":
            return type(value) is int and value > 0
        case "shutdown_date":
            return isinstance(value, date) and not isinstance(value, datetime)
        case _:  # prices have a parser of their own
            return True


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _references(models: Mapping[str, Model], families: Mapping[str, Family]) -> Iterable[str]:
    """Return a fault for each model that is named and not there, and for each name of two models."""
    for name, family in families.items():
        yield from (
            f"models.toml: family {name!r} names {other!r}, which is no model here"
            for other in (*family.fallback, family.fast)
            if other is not None and other not in models
        )
    for name, model in models.items():
        yield from (
            f"models.toml: model {name!r} names {other!r} as its fallback, which is no other model here"
            for other in model.fallback or ()
            if other not in models or other == name
        )
    names = [*models, *(alias for model in models.values() for alias in model.aliases)]
    for name in sorted({one for one in names if names.count(one) > 1}):
        yield f"models.toml: {name!r} names more than one model"


def _tables(table: Mapping[str, Any], key: str, faults: list[str]) -> dict[str, Any]:
    found = table.get(key, {})
    if isinstance(found, Mapping):
        return dict(found)
    faults.append(f"models.toml: {key!r} is a table of tables")
    return {}
