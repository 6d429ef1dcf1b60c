"""`vigil cost`: computes what a workload costs on each model, offline, with the prices of models.toml."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Annotated, Final

import typer

from worker.cli.errors import EXIT_USAGE, CliError
from worker.cli.rendering import print_columns
from worker.jobs.catalogue import dollars
from worker.jobs.record import Usage
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


def format_dollars(amount: Decimal) -> str:
    """Format dollars as $110, $0.5 or $1,234.56, with as many decimals as the amount has."""
    exact = amount.quantize(Decimal(1)) if amount == amount.to_integral_value() else amount.normalize()
    return f"${exact:,f}"


def cost(
    input_: Annotated[str, typer.Option("--input", help="Input tokens: 250000, 250_000, 250k, 10M, 1.5G.")] = "0",
    output: Annotated[str, typer.Option("--output", help="Output tokens, in the same form.")] = "0",
    cached: Annotated[str, typer.Option("--cached", help="How many of the input tokens are cached.")] = "0",
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Only this model; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; money as decimal strings.")] = False,
) -> None:
    """Show what a workload costs on each model. Works offline, with the prices of models.toml."""
    counts = Usage(
        input_tokens=parse_tokens(input_), output_tokens=parse_tokens(output), cached_input_tokens=parse_tokens(cached)
    )
    if not counts.input_tokens and not counts.output_tokens:
        raise CliError("give --input or --output, such as --input 10M --output 2M", EXIT_USAGE)
    if counts.cached_input_tokens > counts.input_tokens:
        raise CliError("--cached is a part of --input, so it can't be larger", EXIT_USAGE)
    catalogue = load().catalogue()
    chosen = [catalogue.get(name) for name in model] if model else list(catalogue.models.values())
    parts = counts.model_copy(update={"output_tokens": 0}), Usage(output_tokens=counts.output_tokens), counts
    rows = [(one.id, [catalogue.cost(one.id, part) for part in parts]) for one in dict.fromkeys(chosen)]
    if as_json:
        models = [
            {"model": name, **dict(zip(_COLUMNS, map(_decimal_text, prices), strict=True))} for name, prices in rows
        ]
        print(json.dumps({"currency": "USD", "models": models}, indent=2))
        return
    table = [(name, *(format_dollars(one) if one is not None else "-" for one in prices)) for name, prices in rows]
    print_columns(("MODEL", *(name.upper() for name in _COLUMNS)), table, right=True)


def _decimal_text(amount: Decimal | None) -> str | None:
    """Return the amount as text for JSON, or None if models.toml has no price."""
    return None if amount is None else dollars(amount)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(cost)
