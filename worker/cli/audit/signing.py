"""The keys with which `vigil audit` signs and verifies on this machine."""

from __future__ import annotations

from worker.audit.keyfile import load_or_create
from worker.audit.keys import Signer
from worker.audit.keytext import from_text
from worker.cli.errors import EXIT_USAGE, CliError
from worker.settings import Settings


def load_signer(settings: Settings) -> Signer | None:
    """Return this machine's signing key, or None. Raise CliError if its file can't be used."""
    given = settings.audit_key.get_secret_value() if settings.audit_key else None
    try:
        return load_or_create(given, settings.data_dir, None)
    except (OSError, ValueError) as error:
        raise CliError(
            f"{settings.data_dir / 'audit.key'} can't be used ({type(error).__name__})", EXIT_USAGE
        ) from None


def trusted_keys(settings: Settings, more: list[str]) -> list[bytes]:
    signer = load_signer(settings)
    try:
        given = [from_text(key) for key in (*settings.audit_public_keys, *more)]
    except ValueError:
        raise CliError("--key must be a public key as `vigil audit key` prints it", EXIT_USAGE) from None
    return [*given, *([signer.public] if signer is not None else [])]
