"""`vigil models`: lists models and price rows; `vigil models update FILE` installs a newer models file, checked."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from worker.catalogue_file import parse_models, read_models_text
from worker.cli.cost import format_dollars, parse_moment
from worker.cli.errors import EXIT_USAGE, CliError, print_error
from worker.cli.rendering import clean, print_columns
from worker.clock import Clock
from worker.jobs.catalogue import Catalogue, dollars
from worker.jobs.errors import SettingsError
from worker.jobs.model import Model
from worker.jobs.pricing import PriceRow
from worker.settings import Settings
from worker.settings_loader import load

_FILE_MODE: Final = 0o644
_HEADINGS: Final = ("MODEL", "TIER", "CHECKED", "FROM", "UNTIL", "INPUT", "CACHED", "OUTPUT", "CHECKED ON", "SOURCE")

models_app = typer.Typer(help="List models and prices; install newer ones.")


@models_app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    at: Annotated[
        str | None, typer.Option(help="Only the prices in force on this day or at this time.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; money as decimal strings.")] = False,
) -> None:
    """List models and prices; install newer ones.

    Without a command: list the models with their rows of prices; the row in force has a `*`. Works offline.
    """
    if context.invoked_subcommand is not None:
        return
    settings = load()
    catalogue = settings.catalogue()
    moment = parse_moment(at) if at is not None else Clock().now()
    if as_json:
        rows = [_model_json(model, moment, only_now=at is not None) for model in catalogue.models.values()]
        print(json.dumps({"file": str(settings.catalogue_path), "models": rows}, indent=2))
        return
    print_columns(_HEADINGS, [row for m in catalogue.models.values() for row in _table_rows(m, moment, at is not None)])
    print(f"\nfrom {settings.catalogue_path}; US dollars per million tokens")


@models_app.command()
def update(
    file: Annotated[Path, typer.Argument(help="The newer models file.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check it, and say what would change.")] = False,
) -> None:
    """Check and install a newer models file.

    It replaces the file of VIGIL_MODELS_FILE, or becomes models.toml in VIGIL_DATA_DIR. API and workers on this machine
    read it within 2 seconds. A file with a fault changes nothing.
    """
    settings = load(check_models=False)
    target = Path(os.path.realpath(settings.own_models_file))
    newer, text = _read_checked(file, settings)
    for line in _changes(settings, newer):
        print(line)
    if dry_run:
        print(f"{file} can be used; nothing was changed")
        return
    _install(text, target)
    print(f"{file} is installed as {target}; running processes read it within 2 seconds, or at once after SIGHUP")


def _read_checked(file: Path, settings: Settings) -> tuple[Catalogue, bytes]:
    """Return the catalogue of the file and its text. Raises CliError, which lists every fault."""
    try:
        text = read_models_text(file)
        newer = parse_models(text, file, unknown_checked=settings.unknown_models_checked)
    except SettingsError as error:
        faults = [fault.removeprefix("VIGIL_MODELS_FILE: ") for fault in error.faults]
        raise CliError(f"{file} can't be used, nothing was changed: " + "; ".join(faults), EXIT_USAGE) from None
    return newer, text


def _changes(settings: Settings, newer: Catalogue) -> list[str]:
    """Return what the newer file changes against the one in use, one line each."""
    try:
        older = settings.catalogue().models
    except SettingsError:
        print_error(f"{settings.catalogue_path}, the file in use, can't be read and is replaced")
        older = {}
    lines = []
    for name in sorted({*older, *newer.models}):
        before, after = older.get(name), newer.models.get(name)
        if after is None:
            lines.append(f"- {clean(name)}: no longer known, jobs for it are refused")
        elif before is None:
            lines.append(f"+ {clean(name)}: {len(after.prices)} price rows")
        elif before != after:
            lines.append(f"~ {clean(name)}: {_difference(before, after)}")
    return lines or ["no model changes"]


def _difference(before: Model, after: Model) -> str:
    if before.prices == after.prices:
        return "its prices are the same, other entries change"
    new = [row for row in after.prices if row not in before.prices]
    gone = [row for row in before.prices if row not in after.prices]
    return f"{len(new)} price rows new or changed, {len(gone)} replaced"


def _install(text: bytes, target: Path) -> None:
    """Write the file beside its target and rename it, so that a reader sees the old one or the new one."""
    fresh: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".models-", suffix=".toml")
        fresh = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode) if target.exists() else _FILE_MODE)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if fresh is not None:
            with suppress(OSError):
                fresh.unlink()
        cure = "set VIGIL_MODELS_FILE to a file that this user may write"
        raise CliError(f"{target} can't be written ({error.strerror}); {cure}") from None


def _table_rows(model: Model, moment: datetime, only_now: bool) -> list[tuple[str, ...]]:
    head = (clean(model.id), model.tier, "yes" if model.checked else "no")
    rows = _rows(model, moment, only_now=only_now)
    if not rows:
        return [] if only_now and model.prices else [(*head, "-", "-", "-", "-", "-", "-", "no price")]
    now = model.row(moment)
    return [
        (
            *head,
            ("*" if row is now else "") + (f"{row.start:%Y-%m-%d}" if row.start else "always"),
            f"{row.end:%Y-%m-%d}" if row.end else "-",
            format_dollars(row.input),
            format_dollars(row.cached_input) if row.cached_input is not None else "-",
            format_dollars(row.output),
            str(row.checked_on or "-"),
            clean(row.source or "-"),
        )
        for row in rows
    ]


def _rows(model: Model, moment: datetime, *, only_now: bool) -> list[PriceRow]:
    now = model.row(moment)
    if not only_now:
        return list(model.prices)
    return [now] if now is not None and (now.start is None or now.start <= moment) else []


def _model_json(model: Model, moment: datetime, *, only_now: bool) -> dict[str, Any]:
    return {
        "id": model.id,
        "family": model.family,
        "tier": model.tier,
        "checked": model.checked,
        "aliases": model.aliases,
        "efforts_refused": model.efforts_refused,
        "shutdown_date": model.shutdown_date and model.shutdown_date.isoformat(),
        "prices": [_row_json(row, model.row(moment)) for row in _rows(model, moment, only_now=only_now)],
    }


def _row_json(row: PriceRow, now: PriceRow | None) -> dict[str, Any]:
    prices = ("input", "cached_input", "cache_write", "cache_write_12h", "output")
    return {
        "from": row.start and row.start.isoformat(),
        "until": row.end and row.end.isoformat(),
        "in_force": row is now,
        **{name: None if (price := getattr(row, name)) is None else dollars(price) for name in prices},
        "long_context": row.long_context and row.long_context.model_dump(mode="json"),
        "tiers": {name: str(factor) for name, factor in row.tiers.items()},
        "windows": {name: str(factor) for name, factor in row.windows.items()},
        "regional": str(row.regional),
        "source": row.source,
        "checked_on": row.checked_on and row.checked_on.isoformat(),
    }


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.add_typer(models_app, name="models")
