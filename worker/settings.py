"""Vigil's settings: read once at the door from the environment or a `.env` file, all faults reported together.

Every name stands in ops/env.example with its meaning and default. Nothing else reads the environment. `<NAME>_FILE`
names a file that holds the value of `<NAME>`: how containers hand out secrets.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, NoDecode, SettingsConfigDict

from worker import redis_address
from worker.audit import keytext
from worker.jobs.catalogue import Catalogue, parse
from worker.jobs.errors import SettingsError

_SOCKET_PATH_LIMIT = 100  # the kernel takes 107 bytes
_ENCRYPTION_KEY = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]=?")  # urlsafe base64 of 32 bytes
_DELAYS = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
_WEBHOOK_PREFIX = "whsec_"
_MOST_DELAYS, _LONGEST_DELAY = 50, 30 * 86_400


class Settings(BaseSettings):
    """One frozen value; field `redis_url` is the variable VIGIL_REDIS_URL, the provider's own names are kept."""

    model_config = SettingsConfigDict(
        env_prefix="VIGIL_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    redis_url: str | None = None
    allow_eviction: bool = False
    allow_lossy_restart: bool = False
    data_dir: Path = Path(".vigil")
    store_mark: Path | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8700
    upstream: Literal["background", "stream", "chat"] = "background"
    max_jobs: Annotated[int, Field(ge=1, le=20_000)] = 200
    app_max_running: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    quarantine_blocks: Annotated[int, Field(ge=0, le=1000)] = 3
    quarantine_window_seconds: Annotated[int, Field(ge=60, le=90 * 86_400)] = 86_400
    lease_seconds: Annotated[float, Field(ge=1, le=3600)] = 15.0
    worker_host: str = "127.0.0.1"
    worker_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    stuck_seconds: Annotated[float, Field(ge=1, le=86_400)] = 600.0
    drain_seconds: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    connect_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    first_event_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    idle_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    check_idle_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    probe_seconds: Annotated[int, Field(ge=0, le=3600)] = 600
    models_file: Path | None = None
    allow_unknown_models: bool = False
    unknown_models_checked: bool = False
    result_ttl: Annotated[int, Field(ge=60)] = 7 * 86_400
    prompt_ttl: Annotated[int | None, Field(ge=0)] = None
    unstored_ttl: Annotated[int, Field(ge=60)] = 3600
    audit_ttl: Annotated[int, Field(ge=60)] = 400 * 86_400
    audit_key: SecretStr | None = None
    audit_public_keys: Annotated[tuple[str, ...], NoDecode] = ()
    audit_checkpoints: Path | None = None
    audit_seal_seconds: Annotated[float, Field(gt=0, le=86_400)] = 10.0
    encryption_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    identifier_secret: SecretStr | None = None
    webhook_allow_private: bool = False
    webhook_ports: Annotated[tuple[int, ...], NoDecode] = (443, 8443)
    webhook_schedule: Annotated[tuple[float, ...], NoDecode] = _DELAYS
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ("127.0.0.1", "::1")
    header_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    body_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    max_header_bytes: Annotated[int, Field(ge=1024, le=2**20)] = 32 * 1024
    rate_per_minute: Annotated[int, Field(ge=0, le=6_000_000)] = 120_000
    rate_burst: Annotated[int, Field(ge=0, le=6_000_000)] = 0
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 2**20)] = 2**20
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"

    openai_api_key: SecretStr | None = Field(None, validation_alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(None, validation_alias="OPENAI_BASE_URL")
    openai_org_id: str | None = Field(None, validation_alias="OPENAI_ORG_ID")
    openai_project_id: str | None = Field(None, validation_alias="OPENAI_PROJECT_ID")
    openai_webhook_secret: SecretStr | None = Field(None, validation_alias="OPENAI_WEBHOOK_SECRET")
    sentry_dsn: SecretStr | None = Field(None, validation_alias="SENTRY_DSN")
    sentry_environment: str = Field("production", validation_alias="SENTRY_ENVIRONMENT")
    sentry_release: str | None = Field(None, validation_alias="SENTRY_RELEASE")
    sentry_traces_sample_rate: Annotated[float, Field(ge=0, le=1, validation_alias="SENTRY_TRACES_SAMPLE_RATE")] = 1.0
    https_proxy: str | None = Field(None, validation_alias="HTTPS_PROXY")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("probe_seconds")
    @classmethod
    def _probe_seconds(cls, value: int) -> int:
        if value and (60 % value if value < 60 else value % 60 or 3600 % value):  # noqa: PLR2004  a clock's numbers
            raise ValueError("must be 0, a divisor of 60, or whole minutes that divide an hour, such as 60, 300 or 600")
        return value

    @field_validator("sentry_dsn")
    @classmethod
    def _dsn(cls, value: SecretStr | None) -> SecretStr | None:
        parts = urlsplit(value.get_secret_value()) if value else None
        if parts and not (
            parts.scheme in {"http", "https"} and parts.username and parts.hostname and parts.path.strip("/")
        ):
            raise ValueError("must be an address such as https://KEY@HOST/PROJECT, as Sentry shows it")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str | None) -> str | None:
        if value is not None:
            redis_address.parse(value)
        return value

    @field_validator("openai_base_url")
    @classmethod
    def _base_url(cls, value: str | None) -> str | None:
        if value is not None and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname):
            raise ValueError("must be an http:// or https:// address, such as https://api.openai.com/v1")
        return value

    @field_validator("audit_key")
    @classmethod
    def _audit_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            keytext.from_text(value.get_secret_value())
        return value

    @field_validator("audit_public_keys")
    @classmethod
    def _audit_public_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, key in enumerate(value, 1):
            try:
                keytext.from_text(key)
            except ValueError:
                raise ValueError(f"key {number} is not a public key as `vigil audit key` prints it") from None
        return value

    @field_validator(
        *("encryption_keys", "audit_public_keys", "webhook_ports", "webhook_schedule", "trusted_proxies"), mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(k.strip() for k in value.split(",") if k.strip()) if isinstance(value, str) else value

    @field_validator("encryption_keys")
    @classmethod
    def _key_sizes(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, key in enumerate(value, 1):
            if _ENCRYPTION_KEY.fullmatch(key.get_secret_value()) is None:
                raise ValueError(
                    f"key {number} is not urlsafe base64 of 32 bytes; `vigil keys generate-encryption` makes one"
                )
        if len({key.get_secret_value().rstrip("=") for key in value}) < len(value):
            raise ValueError("the same key stands there twice")
        return value

    @field_validator("openai_webhook_secret")
    @classmethod
    def _webhook_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            key = webhook_key(value.get_secret_value())
        except binascii.Error:
            raise ValueError("what follows whsec_ is not base64; copy it as the provider showed it") from None
        if not key:  # signed with an empty key, anybody's request would be the provider's
            raise ValueError("must not be empty; leave it out and POST /hooks/openai is closed")
        return value

    @property
    def store_url(self) -> str:
        """The Redis to speak to: the one that was set, else the embedded one of the data folder."""
        return self.redis_url or redis_address.socket_address(socket_path(self.data_dir))

    @property
    def mark_file(self) -> Path:
        """Where the mark of the store is kept: what was set, else a file of the data folder for each kind of Redis."""
        embedded = self.store_url == f"unix://{socket_path(self.data_dir)}"
        return self.store_mark or self.data_dir / ("store.json" if embedded else "store.external.json")

    @field_validator("webhook_ports")
    @classmethod
    def _ports(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or not all(0 < port < 65_536 for port in value):  # noqa: PLR2004
            raise ValueError("must be ports from 1 to 65535, separated by commas")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for place in value:
            try:
                ip_network(place)
            except ValueError:
                raise ValueError("must be addresses or networks such as 10.0.0.0/8, separated by commas") from None
        return value

    @field_validator("webhook_schedule")
    @classmethod
    def _delays(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not 1 <= len(value) <= _MOST_DELAYS or not all(0 <= delay <= _LONGEST_DELAY for delay in value):
            raise ValueError(f"must be 1 to {_MOST_DELAYS} numbers of seconds of at most 30 days, separated by commas")
        return value

    def catalogue(self) -> Catalogue:
        """The models of `models_file`, or the ones that ship with Vigil."""
        return read_catalogue(self.models_file, unknown_checked=self.unknown_models_checked)


def webhook_key(secret: str) -> bytes:
    """The key behind a webhook secret: `whsec_` and base64, or any other text as it is. binascii.Error when broken."""
    if secret.startswith(_WEBHOOK_PREFIX):
        return base64.b64decode(secret.removeprefix(_WEBHOOK_PREFIX), validate=True)
    return secret.strip().encode()


def socket_path(data_dir: Path) -> Path:
    """Where the server of this data folder listens: inside it, or in a short private folder if the path is too long."""
    inside = data_dir.resolve() / "valkey.sock"
    if len(os.fsencode(inside)) <= _SOCKET_PATH_LIMIT:
        return inside
    short = hashlib.sha256(os.fsencode(inside)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"vigil-{os.getuid()}-{short}" / "valkey.sock"


def read_catalogue(models_file: Path | None, *, unknown_checked: bool = False) -> Catalogue:
    """The models of a file, or the ones that ship with Vigil; SettingsError lists every fault."""
    path = models_file or shipped_models_file()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError([f"VIGIL_MODELS_FILE: {path} can't be read ({error.strerror})"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"VIGIL_MODELS_FILE: {path} is not TOML: {error}"]) from None
    return parse(table, unknown_checked=unknown_checked)


def shipped_models_file() -> Path:
    """models.toml beside the code in a checkout, under share/vigil in an installation."""
    beside = Path(__file__).resolve().parent.parent / "models.toml"
    return beside if beside.exists() else Path(sys.prefix) / "share" / "vigil" / "models.toml"


def load(overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings of this process; SettingsError lists all faults, and shows no value."""
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
    faults += _catalogue_faults(settings)
    if _AsGiven().openai_webhook_secret == "" and "OPENAI_WEBHOOK_SECRET" not in given:
        faults.append("OPENAI_WEBHOOK_SECRET: must not be empty; leave it out and POST /hooks/openai is closed")
    if settings is not None and not faults:
        settings = _with_kept_keys(settings, faults)
    if faults or settings is None:
        raise SettingsError(faults)
    return settings


def key_file(data_dir: Path) -> Path:
    """Where `vigil up` keeps the encryption key of the embedded Redis."""
    return data_dir / "encryption.key"


def _with_kept_keys(settings: Settings, faults: list[str]) -> Settings:
    """The key of the data folder decrypts too, and encrypts when no other is set; an external Redis has none there."""
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
    if not all(_ENCRYPTION_KEY.fullmatch(key) for key in kept):
        faults.append(f"VIGIL_ENCRYPTION_KEYS: {path} holds no key as `vigil keys generate-encryption` makes them")
        return settings
    known = {key.get_secret_value() for key in settings.encryption_keys}
    more = tuple(SecretStr(key) for key in kept if key not in known)
    return settings.model_copy(update={"encryption_keys": (*settings.encryption_keys, *more)})


def _from_files() -> tuple[dict[str, str], list[str]]:
    """What the files hold that `<NAME>_FILE` variables name, and the faults; an empty file is a setting not set."""
    said = {**DotEnvSettingsSource(Settings).env_vars, **EnvSettingsSource(Settings).env_vars}
    given: dict[str, str] = {}
    faults: list[str] = []
    for field, info in Settings.model_fields.items():
        name = info.validation_alias if isinstance(info.validation_alias, str) else field
        variable = name if name.isupper() else f"VIGIL_{name.upper()}"
        path = said.get(f"{variable.lower()}_file")
        if path is None:
            continue
        if said.get(variable.lower()):
            faults.append(f"{variable}_FILE: {variable} is set too; only one of the two can be meant")
            continue
        try:
            value = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            faults.append(f"{variable}_FILE: {path} can't be read ({error.strerror})")
        except UnicodeDecodeError:
            faults.append(f"{variable}_FILE: {path} is not text")
        else:
            given.update({name: value} if value else {})
    return given, faults


class _AsGiven(BaseSettings):
    """The one setting that may be left out and must not be empty: elsewhere empty means left out."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore")

    openai_webhook_secret: str | None = Field(None, validation_alias="OPENAI_WEBHOOK_SECRET")


class _ModelsFile(BaseSettings):
    """The one setting that names a file, by itself: so its faults are told together with those of the others."""

    model_config = SettingsConfigDict(env_prefix="VIGIL_", env_file=".env", extra="ignore", env_ignore_empty=True)

    models_file: Path | None = None


def _catalogue_faults(settings: Settings | None) -> list[str]:
    try:
        path = settings.models_file if settings is not None else _ModelsFile().models_file
        read_catalogue(path)
    except SettingsError as error:
        return error.faults
    except ValidationError:
        pass  # told already
    return []
