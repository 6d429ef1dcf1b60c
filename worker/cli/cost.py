"""`vigil cost`: computes what a workload costs on each model, offline, with the prices that are in force on a day."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from worker.cli.errors import EXIT_USAGE, CliError
from worker.cli.rendering import clean, print_columns
from worker.clock import Clock
from worker.jobs.catalogue import Catalogue, dollars
from worker.jobs.model import Model
from worker.jobs.pricing import STANDARD, PriceRow, tier_name
from worker.jobs.record import CallTerms, Usage
from worker.settings_loader import load

_AMOUNT: Final = re.compile(r"([0-9][0-9_]*)(\.[0-9]+)?([kmg]?)", re.IGNORECASE)
_SUFFIX: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_MAX_TOKENS: Final = 10**15
_COLUMNS: Final = ("input", "output", "total")


def parse_tokens(text: str) -> int:
    """Parse a number of tokens such as 250000, 250_000, 250k, 10M or 1.5G. Raise CliError for anything else."""
    found = _AMOUNT.fullmatch(text.strip())
    if found:
        integer, fraction, suffix = found.groups()
        value = Decimal(integer.replace("_", "") + (fraction or "")) * _SUFFIX[suffix.lower()]
        if value == value.to_integral_value() and value <= _MAX_TOKENS:
            return int(value)
    raise CliError(f"{text!r} is no number of tokens; write it as 250000, 250_000, 250k, 10M or 1.5G", EXIT_USAGE)


def parse_moment(text: str) -> datetime:
    """Parse a date, which means its 00:00 UTC, or a time with an offset. Raise CliError for anything else."""
    try:
        if len(text) == len("2026-06-29"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise CliError(f"{text!r} is no date; write it as 2026-06-29 or 2026-06-29T12:00:00Z", EXIT_USAGE)


def format_dollars(amount: Decimal) -> str:
    """Format dollars as $110, $0.5 or $1,234.56, with as many decimals as the amount has."""
    exact = amount.quantize(Decimal(1)) if amount == amount.to_integral_value() else amount.normalize()
    return f"${exact:,f}"


@dataclass(frozen=True, slots=True)
class _Workload:
    """What is priced: tokens, and the terms of the requests that use them."""

    usage: Usage
    terms: CallTerms
    long_context: bool

    def unpriced_terms(self, model: Model, at: datetime) -> list[str]:
        """Return the terms for which the model's prices have no factor: "tier" or "window"."""
        row, tier = row_at(model, at), tier_name(self.terms.service_tier) or STANDARD
        if row is None:
            return []
        window = self.terms.window
        missing = {"tier": tier != STANDARD and tier not in row.tiers, "window": window and window not in row.windows}
        return [name for name, is_missing in missing.items() if is_missing]

    def costs(self, catalogue: Catalogue, model: Model, at: datetime) -> list[Decimal] | None:
        """Return the costs of input, output and both; None if the model has no price at this time."""
        if row_at(model, at) is None:
            return None
        parts = self.usage.model_copy(update={"output_tokens": 0}), Usage(output_tokens=self.usage.output_tokens)
        found = [
            catalogue.price(model.id, part, at, self.terms, long_context=self.long_context)
            for part in (*parts, self.usage)
        ]
        return [one.amount for one in found if one is not None]


def row_at(model: Model, at: datetime) -> PriceRow | None:
    """Return the prices at this time; None without a price, and before the model's first one."""
    row = model.row(at)
    return None if row is None or (row.start is not None and at < row.start) else row


def cost(
    input_: Annotated[str, typer.Option("--input", help="Input tokens: 250000, 250_000, 250k, 10M, 1.5G.")] = "0",
    output: Annotated[str, typer.Option("--output", help="Output tokens, in the same form.")] = "0",
    cached: Annotated[str, typer.Option("--cached", help="How many of the input tokens are cached.")] = "0",
    cache_write: Annotated[
        str, typer.Option("--cache-write", help="How many of the input tokens are written to the cache.")
    ] = "0",
    cache_write_12h: Annotated[
        str, typer.Option("--cache-write-12h", help="How many of the input tokens are written to it for 12 hours.")
    ] = "0",
    at: Annotated[
        str | None, typer.Option(help="The day (00:00 UTC) or time whose prices count.  [now]", show_default=False)
    ] = None,
    tier: Annotated[str | None, typer.Option(help="The service tier: flex, batch, fast (priority), ultrafast.")] = None,
    window: Annotated[str | None, typer.Option(help="The completion window: 2h or 8h.")] = None,
    regional: Annotated[bool, typer.Option("--regional", help="With processing in one region.")] = False,
    long_context: Annotated[
        bool, typer.Option("--long-context", help="Each request has more input than the long-context rule allows.")
    ] = False,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Only this model; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; money as decimal strings.")] = False,
) -> None:
    """Show what a workload costs on each model. Works offline, with the prices of models.toml.

    The tokens are those of many requests, so the long-context rule applies only with --long-context.
    """
    usage = _usage(input_, output, cached, cache_write, cache_write_12h)
    moment = parse_moment(at) if at is not None else Clock().now()
    catalogue = load().catalogue()
    named = {one.id: one for one in map(catalogue.get, model)} if model else catalogue.models
    terms = CallTerms(service_tier=tier, window=window, regional=regional)
    _require_known(named.values(), tier, window)
    workload = _Workload(usage, terms, long_context)
    found = {one.id: workload.costs(catalogue, one, moment) for one in named.values()}
    if as_json:
        rows = [
            {**_json_row(named[name], costs, moment), "unpriced": workload.unpriced_terms(named[name], moment)}
            for name, costs in found.items()
        ]
        print(json.dumps({"currency": "USD", "at": f"{moment:%Y-%m-%dT%H:%M:%SZ}", "models": rows}, indent=2))
        return
    shown = {name: costs for name, costs in found.items() if costs is not None or model}
    table = [(name, *(map(format_dollars, costs) if costs else "---")) for name, costs in shown.items()]
    print_columns(("MODEL", *(name.upper() for name in _COLUMNS)), table, right=True)
    _print_sources([named[name] for name in shown], moment)
    if standard := [name for name in shown if workload.unpriced_terms(named[name], moment)]:
        term = f"the tier {tier}" if tier is not None else f"the window {window}"
        print(f"At Standard prices, because none is known for {clean(term)}: {', '.join(map(clean, standard))}.")
    if missing := [name for name, costs in found.items() if costs is None]:
        print(f"No price on that day: {', '.join(map(clean, missing))}.")


def _usage(input_: str, output: str, cached: str, cache_write: str, cache_write_12h: str) -> Usage:
    kept_long = parse_tokens(cache_write_12h)
    usage = Usage(
        input_tokens=parse_tokens(input_),
        output_tokens=parse_tokens(output),
        cached_input_tokens=parse_tokens(cached),
        cache_write_tokens=parse_tokens(cache_write) + kept_long,
        cache_write_12h_tokens=kept_long,
    )
    if not usage.input_tokens and not usage.output_tokens:
        raise CliError("give --input or --output, such as --input 10M --output 2M", EXIT_USAGE)
    if usage.cached_input_tokens > usage.input_tokens:
        raise CliError("--cached is a part of --input, so it can't be larger", EXIT_USAGE)
    if usage.cached_input_tokens + usage.cache_write_tokens > usage.input_tokens:
        raise CliError("cached and cache-written tokens are parts of --input, so they can't be more", EXIT_USAGE)
    return usage


def _require_known(models: Any, tier: str | None, window: str | None) -> None:
    """Raise CliError for a tier or window that no price knows: a typing error would print Standard prices."""
    rows = [row for model in models for row in model.prices]
    name = tier_name(tier)
    for what, given, known in (
        ("tier", name if name != STANDARD else None, {one for row in rows for one in row.tiers}),
        ("window", window, {one for row in rows for one in row.windows}),
    ):
        if given is not None and given not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise CliError(f"models.toml has no price for the {what} {given!r}; known: {listed}", EXIT_USAGE)
    if window is not None and name not in (None, STANDARD):
        raise CliError("a completion window is for the Standard tier: leave out --tier or --window", EXIT_USAGE)


def _print_sources(models: list[Model], moment: datetime) -> None:
    """Print the date of the prices, and where they were read and when."""
    print(f"Prices of {moment:%Y-%m-%d}, in US dollars.")
    sources: dict[str, list[str]] = {}
    for model in models:
        row = row_at(model, moment)
        if row is None:
            continue
        since = f"since {row.start:%Y-%m-%d}" if row.start is not None else "without a date"
        if row.end is not None and row.end <= moment:
            since += f", known until {row.end:%Y-%m-%d} only"
        checked = f", checked on {row.checked_on}" if row.checked_on is not None else ""
        sources.setdefault(f"{since}: {row.source or 'no source given'}{checked}", []).append(model.id)
    for text, names in sources.items():
        print(f"  {', '.join(map(clean, names))} {clean(text)}")


def _json_row(model: Model, costs: list[Decimal] | None, moment: datetime) -> dict[str, Any]:
    """Return one model of the JSON output; amounts are null without a price at that time."""
    row = row_at(model, moment)
    priced = None if row is None or costs is None else row
    amounts = map(dollars, costs) if costs is not None else (None, None, None)
    return {
        "model": model.id,
        **dict(zip(_COLUMNS, amounts, strict=True)),
        "from": priced and priced.start and f"{priced.start:%Y-%m-%dT%H:%M:%SZ}",
        "until": priced and priced.end and f"{priced.end:%Y-%m-%dT%H:%M:%SZ}",
        "source": priced and priced.source,
        "checked_on": priced and priced.checked_on and priced.checked_on.isoformat(),
    }


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(cost)
