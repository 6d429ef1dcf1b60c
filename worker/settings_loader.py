"""Loads Vigil's settings from the environment, a `.env` file and secret files; reports all faults together.

`<NAME>_FILE` names a file that holds the value of `<NAME>`: how containers hand out secrets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict

from worker.catalogue_file import read_catalogue
from worker.jobs.errors import SettingsError
from worker.provider_accounts import provider_accounts
from worker.setting_values import is_encryption_key
from worker.settings import Settings

_ACCOUNT_SECRET = re.compile(r"(vigil_account_[a-z][a-z0-9_]*_(?:api_key|webhook_secret))(?:_file)?")


def load(overrides: Mapping[str, Any] | None = None, *, check_models: bool = True) -> Settings:
    """Return the settings of this process. Raises SettingsError, which lists all faults and shows no value.

    `check_models`: False for a command that replaces the models file, which may be the one with the fault.
    """
    given, faults = _from_files()
    settings: Settings | None = None
    try:
        settings = Settings(**{**given, **dict(overrides or {})})
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False, include_context=False):
            name = str(fault["loc"][0]) if fault["loc"] else ""
            variable = name if name.isupper() else f"VIGIL_{name.upper()}"
            if name in given:
                variable += "_FILE"
            faults.append(f"{variable}: {fault['msg'].removeprefix('Value error, ')}")
    faults += _catalogue_faults(settings) if check_models else []
    if _AsGiven().openai_webhook_secret == "" and "OPENAI_WEBHOOK_SECRET" not in given:
        faults.append("OPENAI_WEBHOOK_SECRET: must not be empty; leave it out and POST /hooks/openai is closed")
    secrets, unread = _account_secrets()
    faults += unread
    if settings is not None and not faults:
        settings = _with_kept_keys(settings.with_account_secrets(secrets), faults)
        faults += _account_faults(settings) if check_models else []
        faults += _partition_faults(settings)
    if faults or settings is None:
        raise SettingsError(faults)
    return settings


def key_file(data_dir: Path) -> Path:
    """Return where `vigil up` keeps the encryption key of the embedded Redis."""
    return data_dir / "encryption.key"


def _with_kept_keys(settings: Settings, faults: list[str]) -> Settings:
    """Return the settings with the key of the data folder, behind the keys that are set.

    It decrypts too, and encrypts if no other key is set. Only the embedded Redis has a key there.
    """
    path = key_file(settings.data_dir)
    if settings.redis_url is not None or not path.exists():
        return settings
    try:
        kept = [key.strip() for key in path.read_text(encoding="ascii").split(",")]
    except OSError as error:
        faults.append(f"VIGIL_ENCRYPTION_KEYS: {path} can't be read ({error.strerror})")
        return settings
    except UnicodeDecodeError:
        kept = [""]
    if not all(is_encryption_key(key) for key in kept):
        faults.append(f"VIGIL_ENCRYPTION_KEYS: {path} holds no key as `vigil keys generate-encryption` makes them")
        return settings
    known = {key.get_secret_value() for key in settings.encryption_keys}
    more = tuple(SecretStr(key) for key in kept if key not in known)
    return settings.model_copy(update={"encryption_keys": (*settings.encryption_keys, *more)})


def _partition_faults(settings: Settings) -> list[str]:
    names = [one.name for one in settings.partitions]
    given = {
        "VIGIL_NEW_APPS_PARTITIONS": settings.new_apps_partitions,
        "VIGIL_CLI_PARTITION": (settings.cli_partition,) if settings.cli_partition is not None else (),
    }
    return [
        f"{variable}: must name stores of VIGIL_REDIS_URL; known: {', '.join(names)}"
        for variable, chosen in given.items()
        if not set(chosen) <= set(names)
    ]


def _account_faults(settings: Settings) -> list[str]:
    try:
        provider_accounts(settings)
    except SettingsError as error:
        return error.faults
    return []


def _account_secrets() -> tuple[dict[str, SecretStr], list[str]]:
    """Return (the keys and webhook secrets of accounts by the names of their settings, the faults)."""
    variables = {**DotEnvSettingsSource(Settings).env_vars, **EnvSettingsSource(Settings).env_vars}
    found: dict[str, SecretStr] = {}
    faults: list[str] = []
    for name in variables:
        if (variable := _ACCOUNT_SECRET.fullmatch(name)) is None:
            continue
        setting = variable[1].upper()
        value = _value_of(setting, variables, faults)
        if value:
            found[setting] = SecretStr(value)
    return found, faults


def _value_of(setting: str, variables: Mapping[str, str | None], faults: list[str]) -> str | None:
    """Return the value of a setting, or what is in the file that its `_FILE` names; None if it is not set or wrong."""
    value, path = variables.get(setting.lower()), variables.get(f"{setting.lower()}_file")
    if not path:
        return value
    if value:
        faults.append(f"{setting}_FILE: {setting} is set too; set only one of the two")
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        faults.append(f"{setting}_FILE: {path} can't be read ({error.strerror})")
    except UnicodeDecodeError:
        faults.append(f"{setting}_FILE: {path} is not text")
    return None


def _from_files() -> tuple[dict[str, str], list[str]]:
    """Return (the values in the files that `<NAME>_FILE` variables name, the faults); an empty file sets nothing."""
    variables = {**DotEnvSettingsSource(Settings).env_vars, **EnvSettingsSource(Settings).env_vars}
    given: dict[str, str] = {}
    faults: list[str] = []
    for field, info in Settings.model_fields.items():
        name = info.validation_alias if isinstance(info.validation_alias, str) else field
        variable = name if name.isupper() else f"VIGIL_{name.upper()}"
        if variables.get(f"{variable.lower()}_file") is not None and (value := _value_of(variable, variables, faults)):
            given[name] = value
    return given, faults


class _AsGiven(BaseSettings):
    """Reads the one setting that may be left out and must not be empty; everywhere else empty means left out."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore")

    openai_webhook_secret: str | None = Field(None, validation_alias="OPENAI_WEBHOOK_SECRET")


class _ModelsFile(BaseSettings):
    """Reads the one setting that names a file by itself, so that its faults are reported with those of the others."""

    model_config = SettingsConfigDict(env_prefix="VIGIL_", env_file=".env", extra="ignore", env_ignore_empty=True)

    models_file: Path | None = None


def _catalogue_faults(settings: Settings | None) -> list[str]:
    try:
        path = settings.catalogue_path if settings is not None else _ModelsFile().models_file
        if path is not None:
            read_catalogue(path)
    except SettingsError as error:
        return error.faults
    except ValidationError:
        pass  # reported already
    return []
