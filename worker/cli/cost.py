"""`vigil cost`: what a workload costs on each model. Offline; exact decimals; prices from models.toml."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Annotated, Final

import typer

from worker.cli.errors import USAGE, CliError
from worker.cli.rendering import print_columns
from worker.jobs.catalogue import dollars
from worker.jobs.record import Usage
from worker.settings_loader import load

_AMOUNT: Final = re.compile(r"([0-9][0-9_]*)(\.[0-9]+)?([kmg]?)", re.IGNORECASE)
_SUFFIX: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_MOST: Final = 10**15
_PARTS: Final = ("input", "output", "total")


def tokens(text: str) -> int:
    """A number of tokens written as 250000, 250_000, 250k, 10M or 1.5G; CliError for anything else."""
    found = _AMOUNT.fullmatch(text.strip())
    if found:
        whole, part, suffix = found.groups()
        value = Decimal(whole.replace("_", "") + (part or "")) * _SUFFIX[suffix.lower()]
        if value == value.to_integral_value() and value <= _MOST:
            return int(value)
    raise CliError(f"{text!r} is no number of tokens; write 250000, 250_000, 250k, 10M or 1.5G", USAGE)


def money(amount: Decimal) -> str:
    """Dollars for a person: $110, $0.5, $1,234.56; as many decimals as the amount really has."""
    exact = amount.quantize(Decimal(1)) if amount == amount.to_integral_value() else amount.normalize()
    return f"${exact:,f}"


def cost(
    input_: Annotated[str, typer.Option("--input", help="Input tokens: 250000, 250_000, 250k, 10M, 1.5G.")] = "0",
    output: Annotated[str, typer.Option("--output", help="Output tokens, written alike.")] = "0",
    cached: Annotated[str, typer.Option("--cached", help="How many of the input tokens are cached.")] = "0",
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Only this model; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; money as decimal strings.")] = False,
) -> None:
    """Show what a workload costs on each model. Asks nobody; prices stand in models.toml."""
    counts = Usage(input_tokens=tokens(input_), output_tokens=tokens(output), cached_input_tokens=tokens(cached))
    if not counts.input_tokens and not counts.output_tokens:
        raise CliError("say how much: --input and --output, such as --input 10M --output 2M", USAGE)
    if counts.cached_input_tokens > counts.input_tokens:
        raise CliError("--cached counts some of the --input tokens, so it can't be more than those", USAGE)
    catalogue = load().catalogue()
    chosen = [catalogue.get(name) for name in model] if model else list(catalogue.models.values())
    parts = counts.model_copy(update={"output_tokens": 0}), Usage(output_tokens=counts.output_tokens), counts
    rows = [(one.id, [catalogue.cost(one.id, part) for part in parts]) for one in dict.fromkeys(chosen)]
    if as_json:
        models = [{"model": name, **dict(zip(_PARTS, map(_exact, paid), strict=True))} for name, paid in rows]
        print(json.dumps({"currency": "USD", "models": models}, indent=2))
        return
    table = [(name, *(money(one) if one is not None else "-" for one in paid)) for name, paid in rows]
    print_columns(("MODEL", *(part.upper() for part in _PARTS)), table, right=True)


def _exact(amount: Decimal | None) -> str | None:
    """The amount as JSON has it; null without a price in models.toml."""
    return None if amount is None else dollars(amount)


def register(app: typer.Typer) -> None:
    """Put the command on the app."""
    app.command()(cost)
