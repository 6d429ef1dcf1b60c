"""Reads the price rows of a parsed models.toml, strictly: every fault is one line that names model, row and key.

Pure. Rows of one model must follow each other without a gap or an overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, Final

from worker.jobs.pricing import STANDARD, LongContext, PriceRow, tier_name

PRICE_KEYS: Final = ("input", "output", "cached_input", "cache_write", "cache_write_12h")
_FACTOR_KEYS: Final = ("cache_write_factor", "cache_write_12h_factor", "regional")
_TERMS_KEYS: Final = frozenset({*_FACTOR_KEYS, "long_context", "tiers", "windows"})
_ROW_KEYS: Final = frozenset(
    {*PRICE_KEYS, "from", "until", "source", "checked_on", "terms", "regional", "long_context", "tiers", "windows"}
)
_MAX_PRICE: Final = Decimal(1_000_000)
_MAX_PLACES: Final = 12
"""Decimal places of a price or factor: with more, sums would no longer be exact."""


class PriceRowFault(ValueError):
    """A row or a table of terms that can't be used; the text says why."""


def parse_terms(table: object) -> dict[str, Any]:
    """Return a table of terms with its numbers as decimals. Raises PriceRowFault."""
    given = _table(table)
    _refuse_unknown(given, _TERMS_KEYS)
    terms: dict[str, Any] = {key: _number(given, key) for key in _FACTOR_KEYS if key in given}
    return terms | _rules(given)


def parse_rows(sent: object, terms: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[PriceRow, ...], list[str]]:
    """Return the rows of one model in order of time, and what is wrong with them."""
    if not isinstance(sent, list) or not sent:
        return (), ["`prices` is a list of tables [[models.….prices]] with at least one row"]
    rows: list[PriceRow] = []
    faults: list[str] = []
    for number, row in enumerate(sent, 1):
        try:
            rows.append(_row(_table(row), terms, first=number == 1))
        except PriceRowFault as fault:
            faults.append(f"price row {number}: {fault}")
    if faults:
        return (), faults
    return _in_order(rows)


def undated_row(row: Mapping[str, Any]) -> PriceRow:
    """Return the one row of a model that has its prices beside its name. Raises PriceRowFault."""
    return PriceRow(**_prices(row))


def _in_order(rows: list[PriceRow]) -> tuple[tuple[PriceRow, ...], list[str]]:
    """Return the rows by time, each lasting until the next one, and a fault for each gap and overlap."""
    always = datetime.min.replace(tzinfo=UTC)
    ordered = sorted(rows, key=lambda row: row.start or always)
    faults: list[str] = []
    for index, (row, following) in enumerate(pairwise(ordered)):
        begin = following.start or always
        if begin == (row.start or always):
            faults.append(f"two price rows are from {_text(row.start)}")
        elif row.end is None:
            ordered[index] = row.evolve(end=begin)
        elif row.end > begin:
            faults.append(
                f"price rows overlap: the one from {_text(row.start)} lasts until {_text(row.end)}, "
                f"the next is from {_text(begin)}"
            )
        elif row.end < begin:
            faults.append(f"price rows have a gap from {_text(row.end)} until {_text(begin)}")
    return tuple(ordered), faults


def _row(given: dict[str, Any], terms: Mapping[str, Mapping[str, Any]], *, first: bool) -> PriceRow:
    _refuse_unknown(given, _ROW_KEYS)
    name, shared = given.get("terms"), dict[str, Any]()
    if name is not None:
        if not isinstance(name, str) or name not in terms:
            raise PriceRowFault(f"there is no table [terms.{name!r}]")
        shared.update(terms[name])
    if "from" not in given and not first:
        raise PriceRowFault("`from` is missing: every row but the first says when it begins")
    fields: dict[str, Any] = {"start": _moment(given, "from"), "end": _moment(given, "until")}
    if fields["start"] and fields["end"] and fields["end"] <= fields["start"]:
        raise PriceRowFault("`until` is not after `from`")
    fields |= _prices(given) | _with_terms(given, shared)
    for key, check in (("source", _source), ("checked_on", _day)):
        if key in given:
            fields[key] = check(given[key])
    return PriceRow(**fields)


def _with_terms(given: dict[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rules of a row: its own, else those of its terms; the prices of cache writes that follow from them."""
    fields: dict[str, Any] = {}
    for key in ("cache_write", "cache_write_12h"):
        if key not in given and f"{key}_factor" in shared:
            fields[key] = _number(given, "input") * shared[f"{key}_factor"]
    fields |= {key: shared[key] for key in ("long_context", "regional", "tiers", "windows") if key in shared}
    own = _rules(given)
    for key in ("tiers", "windows"):
        if key in own:
            fields[key] = {**fields.get(key, {}), **own.pop(key)}
    fields |= own
    if "regional" in given:
        fields["regional"] = _number(given, "regional")
    return fields


def _prices(given: Mapping[str, Any]) -> dict[str, Decimal]:
    prices = {key: _number(given, key) for key in PRICE_KEYS if key in given}
    if missing := [key for key in ("input", "output") if key not in prices]:
        raise PriceRowFault(f"`{missing[0]}` is missing: a price has input and output, both or none")
    return prices


def _rules(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the long-context rule and the factors of tiers and windows that are given."""
    rules: dict[str, Any] = {}
    if "long_context" in given:
        rule = _table(given["long_context"], "long_context")
        _refuse_unknown(rule, frozenset({"over", "input", "output"}), "long_context")
        over = rule.get("over")
        if type(over) is not int or over < 0:
            raise PriceRowFault("`long_context.over` is a number of input tokens")
        factors = {key: _number(rule, key, "long_context") for key in ("input", "output")}
        rules["long_context"] = LongContext(over=over, **factors)
    for key, normal in (("tiers", lambda name: tier_name(name) or "auto"), ("windows", str)):
        if key in given:
            rules[key] = _factors(given[key], key, normal)
    if {STANDARD, "auto"} & rules.get("tiers", {}).keys():
        raise PriceRowFault("`tiers` has no factor for auto, default or standard: that is the price itself")
    return rules


def _factors(sent: object, key: str, normal: Callable[[str], str]) -> dict[str, Decimal]:
    given = _table(sent, key)
    found: dict[str, Decimal] = {}
    for name in given:
        if normal(name) in found:
            raise PriceRowFault(f"`{key}` has two factors for {normal(name)!r}; fast and priority are one tier")
        found[normal(name)] = _number(given, name, key)
    return found


def _number(given: Mapping[str, Any], key: str, table: str = "") -> Decimal:
    """Return a price or factor, exact: a decimal string, or a number of TOML."""
    name, value = f"{table}.{key}" if table else key, given.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise PriceRowFault(f'`{name}` is a number from 0, best written as a decimal string such as "0.25"')
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        raise PriceRowFault(f'`{name}` is no number; write a decimal string such as "0.25"') from None
    if not number.is_finite() or number < 0 or number > _MAX_PRICE:
        raise PriceRowFault(f"`{name}` is a number from 0 to 1,000,000")
    exponent = number.normalize().as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_MAX_PLACES:
        raise PriceRowFault(f"`{name}` has more than {_MAX_PLACES} decimal places")
    return number


def _moment(given: Mapping[str, Any], key: str) -> datetime | None:
    """Return a date (its 00:00 UTC) or a time with an offset."""
    value = given.get(key)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value) if len(value) > len("2026-06-29") else date.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise PriceRowFault(f"`{key}` has a time without an offset; add Z, or write only the date")
        return value.astimezone(UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise PriceRowFault(f"`{key}` is no date; write it as 2026-06-29, or as 2026-06-29T12:00:00Z")


def _day(value: object) -> date:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise PriceRowFault("`checked_on` is no date; write it as 2026-06-29")


def _source(value: object) -> str:
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value.strip()
    raise PriceRowFault("`source` is one line of text that says where the prices stand")


def _table(value: object, key: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise PriceRowFault(f"`{key}` is a table" if key else "is no table")


def _refuse_unknown(given: Mapping[str, Any], known: frozenset[str], table: str = "") -> None:
    if unknown := sorted(set(given) - known):
        where = f" in `{table}`" if table else ""
        raise PriceRowFault(f"unknown key {unknown[0]!r}{where}; known: {', '.join(sorted(known))}")


def _text(moment: datetime | None) -> str:
    if moment is None:
        return "the beginning"
    return f"{moment:%Y-%m-%d}" if moment.time() == time() else f"{moment:%Y-%m-%dT%H:%M:%SZ}"
