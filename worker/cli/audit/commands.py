"""`vigil audit`: verifies, exports, shows and holds the audit trail. Uses Redis directly: an auditor needs no API."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.audit import ship
from worker.audit.export import BadExport, FileProof, lines_of, read_manifest
from worker.audit.keys import TrustedKeys
from worker.audit.keytext import as_text
from worker.audit.report import Report
from worker.audit.seals import BadSeal
from worker.cli.audit.export import export
from worker.cli.audit.holds import hold, holds, release
from worker.cli.audit.list import list_
from worker.cli.audit.show import show
from worker.cli.audit.signing import load_signer, trusted_keys
from worker.cli.audit.trail_access import Json
from worker.cli.errors import EXIT_FAILED, EXIT_USAGE, CliError
from worker.cli.partitions import heading, in_each
from worker.clock import Clock
from worker.partitions import Partition
from worker.settings import Settings
from worker.settings_loader import load
from worker.store.audit.verification import TrailVerification
from worker.store.lifecycle.record_verification import RecordVerification
from worker.store.partitions.stores import PartitionStore

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
    for command in (export, list_, hold, release, holds):
        group.command(command.__name__.rstrip("_"))(command)
    app.add_typer(group, name="audit")


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
    public = trusted_keys(settings, key or [])
    if file is not None:
        found = [("", _verify_file(file, manifest_file, TrustedKeys(public) if public else None))]
    else:
        found = _verify_redis(
            settings, TrustedKeys(public), checkpoints, allow_unsealed=allow_unsealed, records=records
        )
    if as_json:
        print(json.dumps(_dump(found), indent=2))
    else:
        for name, report in found:
            print(heading(name, len(found)) + "\n".join(report.lines()))
    if not all(report.good for _, report in found):
        raise typer.Exit(EXIT_FAILED)


def _dump(found: list[tuple[str, Report]]) -> dict[str, Any]:
    if len(found) == 1:
        return found[0][1].dump()
    good = all(report.good for _, report in found)
    return {"good": good, "partitions": [{"partition": name, **report.dump()} for name, report in found]}


def _copy_of(partition: Partition, checkpoints: Path | None) -> Path | None:
    """Return the copy of this partition's checkpoints. Raises CliError if it can't be read."""
    if checkpoints is None:
        return None
    path = ship.file_of(checkpoints if partition.is_home else partition.files(copy=checkpoints)["copy"])
    if not path.is_file():
        raise CliError(f"{path} can't be read", EXIT_USAGE)
    return path


def _verify_redis(
    settings: Settings, trusted: TrustedKeys, checkpoints: Path | None, *, allow_unsealed: bool, records: bool
) -> list[tuple[str, Report]]:
    within = None if allow_unsealed else max(_MAX_UNSEALED_S, _MAX_UNSEALED_ROUNDS * settings.audit_seal_seconds)

    async def work(store: PartitionStore) -> Report:
        redis, path = store.redis, _copy_of(store.partition, checkpoints)
        report = await TrailVerification(redis, Clock(), trusted, within).verify(ship.read(path) if path else None)
        if records:
            await RecordVerification(redis, Clock()).verify(report)
        return report

    return in_each(settings, work)


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


@group.command("key")
def key_(as_json: Json = False) -> None:
    """Print this machine's public key. It verifies the checkpoints that this machine signed."""
    signer = load_signer(load())
    if signer is None:
        raise CliError("this machine has no signing key: set VIGIL_AUDIT_KEY, or start a worker, which makes one")
    text = as_text(signer.public)
    print(json.dumps({"key_id": signer.key_id, "public_key": text}) if as_json else text)
