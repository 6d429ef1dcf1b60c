"""`vigil doctor`: checks everything that Vigil needs and prints ok, warning or problem for each, with a fix."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from worker.audit.keyfile import FILE_NAME
from worker.cli.audit.signing import load_signer
from worker.cli.doctor.check import DoctorCheck, format_check
from worker.cli.doctor.external_checks import api_check, sentry_check, webhook_checks
from worker.cli.doctor.model_checks import model_checks
from worker.cli.doctor.partition_checks import partition_checks
from worker.cli.doctor.provider_checks import provider_checks
from worker.cli.errors import EXIT_FAILED, CliError
from worker.clock import Clock
from worker.jobs.errors import SettingsError
from worker.settings import Settings
from worker.settings_loader import load


def settings_problems(error: SettingsError) -> list[DoctorCheck]:
    """Return a check for each wrong setting."""
    fix = "correct it in the environment or in .env; see ops/env.example"
    return [DoctorCheck("settings", "problem", fault, fix) for fault in error.faults]


async def examine(
    settings: Settings, webhook: str | None = None, model: str | None = None
) -> AsyncIterator[DoctorCheck]:
    """Yield all checks; later ones build on earlier ones."""
    yield DoctorCheck("settings", "ok", "all settings can be used")
    for found in model_checks(settings, Clock().now()):
        yield found
    async for check in partition_checks(settings):
        yield check
    yield await api_check(settings)
    async for check in provider_checks(settings, model):
        yield check
    async for check in webhook_checks(settings, webhook):
        yield check
    yield await sentry_check(settings)
    yield _audit_key(settings)
    yield _encryption(settings)
    if settings.archive is not None:
        yield _large_outputs(settings)
    yield _identifiers(settings)


def _audit_key(settings: Settings) -> DoctorCheck:
    path = settings.data_dir / FILE_NAME
    try:
        shared = settings.audit_key is None and path.stat().st_mode & 0o077 != 0
        signer = load_signer(settings)
    except FileNotFoundError:
        signer, shared = None, False
    except (CliError, OSError):
        return DoctorCheck("audit key", "problem", f"{path} can't be used", "set VIGIL_AUDIT_KEY, or remove the file")
    if signer is None:
        fix = "set VIGIL_AUDIT_KEY, the same for every worker; a worker without one makes its own"
        return DoctorCheck(
            "audit key",
            "warning",
            "none on this machine: it can neither sign the audit trail nor verify its signatures",
            fix,
        )
    if shared:
        return DoctorCheck("audit key", "problem", f"{path} can be read by others on this machine", f"chmod 600 {path}")
    detail = f"{signer.key_id}, from {'VIGIL_AUDIT_KEY' if settings.audit_key else path}"
    if settings.audit_checkpoints is None:
        fix = "set VIGIL_AUDIT_CHECKPOINTS to a file that nobody with access to Redis can write"
        return DoctorCheck("audit key", "warning", f"{detail}; no copy of the checkpoints is kept outside Redis", fix)
    return DoctorCheck("audit key", "ok", f"{detail}; checkpoints are copied to {settings.audit_checkpoints}")


def _encryption(settings: Settings) -> DoctorCheck:
    if settings.encryption_keys:
        return DoctorCheck("encryption", "ok", f"on; {len(settings.encryption_keys)} key(s), the first encrypts")
    fix = "set VIGIL_ENCRYPTION_KEYS; `vigil keys generate-encryption` makes a key"
    detail = "off: prompts and answers are in Redis unencrypted, and whoever writes to Redis is believed"
    return DoctorCheck("encryption", "warning", detail, fix)


def _large_outputs(settings: Settings) -> DoctorCheck:
    if settings.encryption_keys:
        least = f"{settings.archive_output_bytes:,} bytes"
        return DoctorCheck("large outputs", "ok", f"above {least} they go to {settings.archive}, encrypted")
    fix = "set VIGIL_ENCRYPTION_KEYS: nothing unencrypted leaves Redis"
    return DoctorCheck("large outputs", "warning", "they stay in Redis: they are not encrypted", fix)


def _identifiers(settings: Settings) -> DoctorCheck:
    if settings.identifier_secret:
        return DoctorCheck("identifiers", "ok", "end users are sent to the provider as digests keyed with your secret")
    return DoctorCheck(
        "identifiers",
        "warning",
        "VIGIL_IDENTIFIER_SECRET is not set",
        "set a long random text, the same on every machine",
    )


def doctor(
    webhook: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Also send an unsigned {} to this webhook receiver.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--try",
            metavar="MODEL",
            help="Also send one request of some 80 tokens to this model, as a job would; it is billed.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this installation and suggest fixes.

    Checks settings; the models file, whether its prices are fresh and what shuts down soon; Redis, its persistence and
    its access rights; workers, API and key, access to models, the provider,
    its models and whether VIGIL_UPSTREAM fits it, clocks, webhooks, Sentry, audit trail and encryption. Costs nothing
    without --try. Exits 1 on a problem, 2 if the settings can't be used.
    """
    try:
        settings = load()
    except SettingsError as error:
        if as_json:
            _print_json("problem", settings_problems(error))
        raise

    async def go() -> list[DoctorCheck]:
        found = []
        async for check in examine(settings, webhook, model):
            found.append(check)
            if not as_json:
                print(format_check(check))
        return found

    found = asyncio.run(go())
    worst = next((s for s in ("problem", "warning") if any(c.state == s for c in found)), "ok")
    if as_json:
        _print_json(worst, found)
    if worst == "problem":
        raise typer.Exit(EXIT_FAILED)


def _print_json(state: str, checks: list[DoctorCheck]) -> None:
    body: dict[str, Any] = {"state": state, "checks": [asdict(check) for check in checks]}
    print(json.dumps(body, indent=2))


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(doctor)
