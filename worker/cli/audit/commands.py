"""`vigil audit`: prove the trail, take it out, look at one job's. Speaks to Redis directly: an auditor needs no API."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Awaitable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from worker.audit import ship
from worker.audit.chain import app_chain
from worker.audit.export import BadExport, FileProof, lines_of, manifest, read_manifest
from worker.audit.keyfile import own
from worker.audit.keys import Signer, Trusted
from worker.audit.keytext import as_text, from_text
from worker.audit.report import Report
from worker.audit.seals import BadSeal
from worker.cli.audit.show import show
from worker.cli.audit.trail_access import Json, with_trail
from worker.cli.errors import BAD, USAGE, CliError
from worker.cli.rendering import clean, print_columns
from worker.clock import Clock, to_ms
from worker.jobs.ids import job_id_of
from worker.settings import Settings
from worker.settings_loader import load
from worker.store.audit.export import Export
from worker.store.audit.legal_holds import LegalHolds
from worker.store.audit.verification import TrailVerification
from worker.store.connection.pool import Redis

_SEALED_WITHIN, _ROUNDS = 600.0, 60  # seconds, or rounds of the sealer if they take longer

room = typer.Typer(
    help="Prove the audit trail, export or hold it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(app: typer.Typer) -> None:
    """Put the commands on the root."""
    room.command()(show)
    app.add_typer(room, name="audit")


def signer_of(settings: Settings) -> Signer | None:
    """The key of this machine, if it has one."""
    given = settings.audit_key.get_secret_value() if settings.audit_key else None
    try:
        return own(given, settings.data_dir, None)
    except (OSError, ValueError) as error:
        raise CliError(f"{settings.data_dir / 'audit.key'} can't be used ({type(error).__name__})", USAGE) from None


def _trusted(settings: Settings, more: list[str]) -> list[bytes]:
    signer = signer_of(settings)
    try:
        given = [from_text(key) for key in (*settings.audit_public_keys, *more)]
    except ValueError:
        raise CliError("--key is a public key as `vigil audit key` prints it", USAGE) from None
    return [*given, *([signer.public] if signer is not None else [])]


@room.command()
def verify(
    file: Annotated[
        Path | None, typer.Option("--file", help="Prove this export in place of the trail in Redis.")
    ] = None,
    manifest_file: Annotated[
        Path | None, typer.Option("--manifest", help="The export's manifest.  [FILE.manifest.json]")
    ] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="The copy of the checkpoints that VIGIL_AUDIT_CHECKPOINTS shipped.")
    ] = None,
    key: Annotated[list[str] | None, typer.Option("--key", help="A public key to believe; may be repeated.")] = None,
    allow_unsealed: Annotated[
        bool,
        typer.Option(
            "--allow-unsealed",
            help="Old records that no checkpoint covers are no fault: for a Vigil whose workers stood still.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Prove that the trail is whole. Nothing was altered, removed, inserted, reordered or truncated.

    Exit code 1 when something is wrong; then the first bad record is named.
    """
    settings = load()
    public = _trusted(settings, key or [])
    if file is not None:
        report = _of_file(file, manifest_file, Trusted(public) if public else None)
    else:
        report = _of_redis(settings, Trusted(public), checkpoints, allow_unsealed=allow_unsealed)
    print(json.dumps(report.dump(), indent=2) if as_json else "\n".join(report.lines()))
    if not report.good:
        raise typer.Exit(BAD)


def _of_redis(settings: Settings, trusted: Trusted, checkpoints: Path | None, *, allow_unsealed: bool) -> Report:
    path = ship.file_of(checkpoints) if checkpoints is not None else None
    if path is not None and not path.is_file():
        raise CliError(f"{path} can't be read", USAGE)
    within = None if allow_unsealed else max(_SEALED_WITHIN, _ROUNDS * settings.audit_seal_seconds)

    def work(redis: Redis) -> Awaitable[Report]:
        return TrailVerification(redis, Clock(), trusted, within).prove(ship.read(path) if path else None)

    return with_trail(settings, work)


def _of_file(path: Path, told: Path | None, trusted: Trusted | None) -> Report:
    clock = Clock()
    begun = clock.monotonic()
    beside = told or Path(f"{path}.manifest.json")
    try:
        body = _manifest(beside) if told is not None or beside.exists() else None
        with ExitStack() as stack:
            report = FileProof(lambda: lines_of(stack.enter_context(path.open("rb"))), body, trusted).prove()
    except OSError as error:
        raise CliError(f"{error.filename} can't be read: {error.strerror}", USAGE) from None
    except (BadExport, BadSeal) as error:
        raise CliError(f"{path}: {error}") from None
    report.seconds = clock.monotonic() - begun
    return report


def _manifest(path: Path) -> dict[str, Any]:
    try:
        return read_manifest(path.read_bytes())
    except BadExport as error:
        raise CliError(f"{path}: {error}") from None


@room.command()
def export(
    out: Annotated[
        Path | None, typer.Option("--out", help="Write here, and the manifest to FILE.manifest.json.  [stdout]")
    ] = None,
    app: Annotated[str | None, typer.Option(help="Only this app's records.")] = None,
    after: Annotated[str | None, typer.Option(help="From this time on, ISO 8601.")] = None,
    before: Annotated[str | None, typer.Option(help="Before this time, ISO 8601.")] = None,
    manifest_file: Annotated[Path | None, typer.Option("--manifest", help="Where the manifest goes.")] = None,
) -> None:
    """Write the trail as NDJSON. One record a line, with a manifest by which anybody can prove it (ops/audit.md)."""
    settings = load()
    times = {"after": _ms("--after", after), "before": _ms("--before", before)}
    beside = manifest_file or (Path(f"{out}.manifest.json") if out else None)
    signer, public = signer_of(settings), _trusted(settings, [])

    async def work(redis: Redis) -> int:
        clock = Clock()
        export = Export(redis, clock, app, times["after"], times["before"])
        batches = export.lines()
        first: list[bytes] = await anext(batches, [])  # (before an earlier export is overwritten: Redis may be away)
        with ExitStack() as stack:
            file: IO[bytes] = stack.enter_context(out.open("wb")) if out is not None else sys.stdout.buffer
            file.writelines(line + b"\n" for line in first)
            async for lines in batches:
                file.writelines(line + b"\n" for line in lines)
            file.flush()
        filters = {"app": app, "after": after, "before": before}
        if beside is not None:
            raw = manifest(export.book, export.seals, filters=filters, public=public, signer=signer, at=clock.now())
            beside.write_bytes(raw)
        return export.book.digest.count

    try:
        count = with_trail(settings, work)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise CliError(f"{error.filename} can't be written: {error.strerror}", USAGE) from None
    if out is not None:
        typer.echo(f"{count:,} records in {out}; prove them with `vigil audit verify --file {out}`", err=True)


def _ms(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        return max(0, to_ms(at if at.tzinfo else at.replace(tzinfo=UTC)))
    except (ValueError, OverflowError):
        raise CliError(f"{option} takes a time such as 2026-07-01T12:00:00Z, not {text!r}", USAGE) from None


@room.command("key")
def key_(as_json: Json = False) -> None:
    """Print this machine's public key. By it its checkpoints are checked."""
    signer = signer_of(load())
    if signer is None:
        raise CliError("there is no signing key here: set VIGIL_AUDIT_KEY, or start a worker, which makes one")
    text = as_text(signer.public)
    print(json.dumps({"key_id": signer.key_id, "public_key": text}) if as_json else text)


JobOrNone = Annotated[str | None, typer.Argument(metavar="[JOB]", help="The job's id, job_….")]
AppOrNone = Annotated[str | None, typer.Option("--app", help="All jobs of this app, in place of one job.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit trail.")]
By = Annotated[str, typer.Option("--by", help="Who says so.  [your login]")]


@room.command()
def hold(reason: Reason, job: JobOrNone = None, app: AppOrNone = None, by: By = "", as_json: Json = False) -> None:
    """Keep what a legal case needs. Neither trail nor content of the job, or of all jobs of the app, goes by time."""
    name, settings = _named(job, app), load()
    who, ttl = by or _login(), settings.result_ttl
    with_trail(settings, lambda r: LegalHolds(r, Clock(), ttl).place(name, by=who, why=reason), writes=True)
    print(json.dumps({"name": name, "held": True}) if as_json else f"{name} is held; `vigil audit release` ends that")


@room.command()
def release(reason: Reason, job: JobOrNone = None, app: AppOrNone = None, by: By = "", as_json: Json = False) -> None:
    """End a hold: what is over is removed again."""
    name, settings = _named(job, app), load()
    who, ttl = by or _login(), settings.result_ttl
    with_trail(settings, lambda r: LegalHolds(r, Clock(), ttl).release(name, by=who, why=reason), writes=True)
    print(json.dumps({"name": name, "held": False}) if as_json else f"{name} is not held any more")


@room.command()
def holds(as_json: Json = False) -> None:
    """List all holds: what, who, why, since when."""
    settings = load()
    rows = with_trail(settings, lambda r: LegalHolds(r, Clock(), settings.result_ttl).told())
    if as_json:
        print(json.dumps({"object": "list", "data": rows}, indent=2))
    elif not rows:
        print("Nothing is held.")
    else:
        cells = [(row["name"], row["since"], clean(row["by"]), clean(row["reason"])) for row in rows]
        print_columns(("HELD", "SINCE", "BY", "REASON"), cells)


def _named(job: str | None, app: str | None) -> str:
    if (job is None) == (app is None):
        raise CliError("name a job or --app, one of the two", USAGE)
    return app_chain(app) if app is not None else job_id_of(job or "")


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
