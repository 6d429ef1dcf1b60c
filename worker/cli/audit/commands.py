"""`vigil audit`: verifies, exports, shows and holds the audit trail. Uses Redis directly: an auditor needs no API."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from worker.audit import ship
from worker.audit.export import BadExport, FileProof, lines_of, manifest, read_manifest
from worker.audit.keyfile import load_or_create
from worker.audit.keys import Signer, TrustedKeys
from worker.audit.keytext import as_text, from_text
from worker.audit.report import Report
from worker.audit.seals import BadSeal
from worker.cli.audit.holds import hold, holds, release
from worker.cli.audit.show import show
from worker.cli.audit.trail_access import Json, with_trail
from worker.cli.errors import EXIT_FAILED, EXIT_USAGE, CliError
from worker.clock import Clock, to_ms
from worker.settings import Settings
from worker.settings_loader import load
from worker.store.audit.export import Export
from worker.store.audit.verification import TrailVerification
from worker.store.connection.pool import Redis
from worker.store.lifecycle.record_verification import RecordVerification

_MAX_UNSEALED_S, _MAX_UNSEALED_ROUNDS = 600.0, 60  # seconds, or rounds of the sealer if they take longer

group = typer.Typer(
    help="Verify, export or hold the audit trail.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    group.command()(show)
    for command in (hold, release, holds):
        group.command()(command)
    app.add_typer(group, name="audit")


def load_signer(settings: Settings) -> Signer | None:
    """Return this machine's signing key, or None. Raise CliError if its file can't be used."""
    given = settings.audit_key.get_secret_value() if settings.audit_key else None
    try:
        return load_or_create(given, settings.data_dir, None)
    except (OSError, ValueError) as error:
        raise CliError(
            f"{settings.data_dir / 'audit.key'} can't be used ({type(error).__name__})", EXIT_USAGE
        ) from None


def _trusted_keys(settings: Settings, more: list[str]) -> list[bytes]:
    signer = load_signer(settings)
    try:
        given = [from_text(key) for key in (*settings.audit_public_keys, *more)]
    except ValueError:
        raise CliError("--key must be a public key as `vigil audit key` prints it", EXIT_USAGE) from None
    return [*given, *([signer.public] if signer is not None else [])]


@group.command()
def verify(
    file: Annotated[
        Path | None, typer.Option("--file", help="Verify this export instead of the trail in Redis.")
    ] = None,
    manifest_file: Annotated[
        Path | None, typer.Option("--manifest", help="The export's manifest.  [FILE.manifest.json]")
    ] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="The copy of the checkpoints that VIGIL_AUDIT_CHECKPOINTS wrote.")
    ] = None,
    key: Annotated[list[str] | None, typer.Option("--key", help="A public key to trust; may be repeated.")] = None,
    records: Annotated[
        bool,
        typer.Option(
            "--records",
            help="Also compare jobs, events, prompts, answers, API keys, apps, webhook endpoints, pauses, quarantines "
            "and legal holds in Redis with the trail, and name each difference.",
        ),
    ] = False,
    allow_unsealed: Annotated[
        bool,
        typer.Option(
            "--allow-unsealed",
            help="Accept old records that no checkpoint covers: for a Vigil whose workers were stopped.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Verify the audit trail.

    Finds records that were altered, removed, inserted, reordered or truncated. Exits 1 if something is wrong and names
    the first bad record. With --records also what in Redis is not what the trail says.
    """
    settings = load()
    if records and file is not None:
        raise CliError("--records compares Redis, --file verifies an export: give one of them", EXIT_USAGE)
    public = _trusted_keys(settings, key or [])
    if file is not None:
        report = _verify_file(file, manifest_file, TrustedKeys(public) if public else None)
    else:
        report = _verify_redis(
            settings, TrustedKeys(public), checkpoints, allow_unsealed=allow_unsealed, records=records
        )
    print(json.dumps(report.dump(), indent=2) if as_json else "\n".join(report.lines()))
    if not report.good:
        raise typer.Exit(EXIT_FAILED)


def _verify_redis(
    settings: Settings, trusted: TrustedKeys, checkpoints: Path | None, *, allow_unsealed: bool, records: bool
) -> Report:
    path = ship.file_of(checkpoints) if checkpoints is not None else None
    if path is not None and not path.is_file():
        raise CliError(f"{path} can't be read", EXIT_USAGE)
    within = None if allow_unsealed else max(_MAX_UNSEALED_S, _MAX_UNSEALED_ROUNDS * settings.audit_seal_seconds)

    async def work(redis: Redis) -> Report:
        report = await TrailVerification(redis, Clock(), trusted, within).verify(ship.read(path) if path else None)
        if records:
            await RecordVerification(redis, Clock()).verify(report)
        return report

    return with_trail(settings, work)


def _verify_file(path: Path, manifest_file: Path | None, trusted: TrustedKeys | None) -> Report:
    clock = Clock()
    begun = clock.monotonic()
    manifest_path = manifest_file or Path(f"{path}.manifest.json")
    try:
        body = _manifest(manifest_path) if manifest_file is not None or manifest_path.exists() else None
        with ExitStack() as stack:
            report = FileProof(lambda: lines_of(stack.enter_context(path.open("rb"))), body, trusted).prove()
    except OSError as error:
        raise CliError(f"{error.filename} can't be read: {error.strerror}", EXIT_USAGE) from None
    except (BadExport, BadSeal) as error:
        raise CliError(f"{path}: {error}") from None
    report.seconds = clock.monotonic() - begun
    return report


def _manifest(path: Path) -> dict[str, Any]:
    try:
        return read_manifest(path.read_bytes())
    except BadExport as error:
        raise CliError(f"{path}: {error}") from None


@group.command()
def export(
    out: Annotated[
        Path | None, typer.Option("--out", help="Write to this file, and the manifest to FILE.manifest.json.  [stdout]")
    ] = None,
    app: Annotated[str | None, typer.Option(help="Only this app's records.")] = None,
    after: Annotated[str | None, typer.Option(help="Only records from this time on, ISO 8601.")] = None,
    before: Annotated[str | None, typer.Option(help="Only records before this time, ISO 8601.")] = None,
    manifest_file: Annotated[Path | None, typer.Option("--manifest", help="Write the manifest to this file.")] = None,
) -> None:
    """Export the audit trail as NDJSON.

    Writes one record per line and a manifest with which anyone can verify the export (ops/audit.md).
    """
    settings = load()
    times = {"after": _parse_time_ms("--after", after), "before": _parse_time_ms("--before", before)}
    manifest_path = manifest_file or (Path(f"{out}.manifest.json") if out else None)
    signer, public = load_signer(settings), _trusted_keys(settings, [])

    async def work(redis: Redis) -> int:
        clock = Clock()
        export = Export(redis, clock, app, times["after"], times["before"])
        batches = export.lines()
        first: list[bytes] = await anext(
            batches, []
        )  # (read before an earlier export is overwritten: Redis may be away)
        with ExitStack() as stack:
            file: IO[bytes] = stack.enter_context(out.open("wb")) if out is not None else sys.stdout.buffer
            file.writelines(line + b"\n" for line in first)
            async for lines in batches:
                file.writelines(line + b"\n" for line in lines)
            file.flush()
        filters = {"app": app, "after": after, "before": before}
        if manifest_path is not None:
            raw = manifest(export.manifest, export.seals, filters=filters, public=public, signer=signer, at=clock.now())
            manifest_path.write_bytes(raw)
        return export.manifest.digest.count

    try:
        count = with_trail(settings, work)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise CliError(f"{error.filename} can't be written: {error.strerror}", EXIT_USAGE) from None
    if out is not None:
        typer.echo(f"{count:,} records in {out}; `vigil audit verify --file {out}` verifies them", err=True)


def _parse_time_ms(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        return max(0, to_ms(at if at.tzinfo else at.replace(tzinfo=UTC)))
    except (ValueError, OverflowError):
        raise CliError(f"{option} takes a time such as 2026-07-01T12:00:00Z, not {text!r}", EXIT_USAGE) from None


@group.command("key")
def key_(as_json: Json = False) -> None:
    """Print this machine's public key. It verifies the checkpoints that this machine signed."""
    signer = load_signer(load())
    if signer is None:
        raise CliError("this machine has no signing key: set VIGIL_AUDIT_KEY, or start a worker, which makes one")
    text = as_text(signer.public)
    print(json.dumps({"key_id": signer.key_id, "public_key": text}) if as_json else text)
