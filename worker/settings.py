"""Vigil's settings: names, types, defaults and what each value must look like.

ops/env.example lists every setting with its meaning and default. `settings_loader.py` reads the environment; nothing
else does.
"""

from __future__ import annotations

import binascii
import os
import re
from collections.abc import Mapping
from ipaddress import IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from worker import redis_address
from worker.archive_settings import ArchiveSettings
from worker.audit import keytext
from worker.catalogue_file import read_catalogue, shipped_models_file
from worker.jobs.catalogue import Catalogue
from worker.partitions import Partition, parse_partitions
from worker.private_files import socket_path
from worker.setting_values import is_encryption_key, is_http, long_enough, webhook_key

_WEBHOOK_DELAYS_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
_ORIGIN = r"(https://(?!.*:443$)|http://(?!.*:80$))([a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[1-9][0-9]{0,4})?"
NAT64_PREFIX_LENGTHS = (32, 40, 48, 56, 64, 96)  # that a prefix of NAT64 may have (RFC 6052)
_EMAIL = re.compile(r"[^\s@,;<>\"]{1,64}@[^\s@,;<>\"]{1,189}")
_MAX_WEBHOOK_DELAYS, _MAX_WEBHOOK_DELAY_S = 50, 30 * 86_400

ROOT_PATH = r"(/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+;=:@-]+)*"
"""A prefix of paths: without `//`, which would begin a host, and without anything that is escaped in a URL."""


class Settings(ArchiveSettings):
    """All settings, frozen. Field `redis_url` is the variable VIGIL_REDIS_URL; the provider's own names are kept."""

    model_config = SettingsConfigDict(
        env_prefix="VIGIL_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    redis_url: str | None = None
    new_apps_partitions: Annotated[tuple[str, ...], NoDecode] = ()
    cli_partition: str | None = None
    allow_eviction: bool = False
    allow_lossy_restart: bool = False
    data_dir: Path = Path(".vigil")
    store_mark: Path | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8700
    upstream: Literal["background", "stream", "chat"] = "background"
    max_jobs: Annotated[int, Field(ge=1, le=20_000)] = 200
    app_max_running: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    app_slot_share: Annotated[float, Field(gt=0, le=1)] = 0.8
    pacing: Literal["headers", "limits", "off"] = "headers"
    end_user_max_running: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    widened_rpm: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    quarantine_blocks: Annotated[int, Field(ge=0, le=1000)] = 3
    quarantine_window_seconds: Annotated[int, Field(ge=60, le=90 * 86_400)] = 86_400
    quarantine_limited_seconds: Annotated[int, Field(ge=0, le=90 * 86_400)] = 86_400
    quarantine_days: Annotated[int, Field(ge=0, le=3650)] = 30
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
    accounts_file: Path | None = None
    allow_unknown_models: bool = False
    unknown_models_checked: bool = False
    regional_processing: bool | None = None
    result_ttl: Annotated[int, Field(ge=60)] = 7 * 86_400
    prompt_ttl: Annotated[int | None, Field(ge=0)] = None
    unstored_ttl: Annotated[int, Field(ge=60)] = 3600
    audit_ttl: Annotated[int, Field(ge=60)] = 400 * 86_400
    audit_max_ttl: Annotated[int | None, Field(ge=60)] = None
    audit_key: SecretStr | None = None
    audit_public_keys: Annotated[tuple[str, ...], NoDecode] = ()
    audit_checkpoints: Path | None = None
    audit_seal_seconds: Annotated[float, Field(gt=0, le=86_400)] = 10.0
    encryption_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    accept_unsealed: bool = False
    compact_records: bool | None = None
    identifier_secret: SecretStr | None = None
    webhook_allow_private: bool = False
    webhook_ports: Annotated[tuple[int, ...], NoDecode] = (443, 8443)
    webhook_schedule: Annotated[tuple[float, ...], NoDecode] = _WEBHOOK_DELAYS_S
    webhook_disable_days: Annotated[float, Field(ge=0, le=365)] = 5.0
    webhook_rate: Annotated[float, Field(ge=0, le=100_000)] = 100.0
    webhook_nat64_prefixes: Annotated[tuple[str, ...], NoDecode] = ()
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ("127.0.0.1", "::1")
    root_path: str = ""
    public_url: str | None = None
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    console: bool = True
    job_token_seconds: Annotated[int, Field(ge=10, le=3600)] = 900
    header_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    body_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    send_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    max_connections: Annotated[int, Field(ge=16, le=1_000_000)] = 10_000
    max_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 5_000
    max_waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 5_000
    app_max_requests: Annotated[int, Field(ge=0, le=1_000_000)] = 1_000
    app_max_waits: Annotated[int, Field(ge=0, le=1_000_000)] = 1_000
    app_max_streams: Annotated[int, Field(ge=0, le=1_000_000)] = 1_000
    max_header_bytes: Annotated[int, Field(ge=1024, le=2**20)] = 32 * 1024
    rate_per_minute: Annotated[int, Field(ge=0, le=6_000_000)] = 120_000
    rate_burst: Annotated[int, Field(ge=0, le=6_000_000)] = 0
    app_max_waiting: Annotated[int, Field(ge=0, le=10_000_000)] = 100_000
    app_max_bytes: Annotated[int, Field(ge=0, le=2**50)] = 4 * 2**30
    app_memory_percent: Annotated[int, Field(ge=0, le=100)] = 75
    memory_reserve_percent: Annotated[int, Field(ge=0, le=50)] = 10
    shared_provider_state: Annotated[tuple[str, ...], NoDecode] = ()
    max_ahead_seconds: Annotated[int, Field(ge=3600, le=31_536_000)] = 30 * 86_400
    max_body_bytes: Annotated[int | None, Field(ge=1024, le=64 * 2**20)] = None
    body_memory_bytes: Annotated[int, Field(ge=2**20, le=2**40)] = 64 * 2**20
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"
    surface: Literal["api", "codex"] = "api"
    account_email: Annotated[str | None, Field(max_length=254)] = None
    codex_workspace_id: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$")] = None

    openai_api_key: SecretStr | None = Field(None, validation_alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(None, validation_alias="OPENAI_BASE_URL")
    openai_org_id: str | None = Field(None, validation_alias="OPENAI_ORG_ID")
    openai_project_id: str | None = Field(None, validation_alias="OPENAI_PROJECT_ID")
    openai_webhook_secret: SecretStr | None = Field(None, validation_alias="OPENAI_WEBHOOK_SECRET")
    sentry_dsn: SecretStr | None = Field(None, validation_alias="SENTRY_DSN")
    sentry_environment: str = Field("production", validation_alias="SENTRY_ENVIRONMENT")
    sentry_release: str | None = Field(None, validation_alias="SENTRY_RELEASE")
    sentry_traces_sample_rate: Annotated[float, Field(ge=0, le=1, validation_alias="SENTRY_TRACES_SAMPLE_RATE")] = 1.0

    _account_secrets: dict[str, SecretStr] = PrivateAttr(default_factory=dict)  # by the names of their settings
    _partitions: tuple[Partition, ...] = PrivateAttr(default=())  # of settings for one of several
    _partition: Partition | None = PrivateAttr(default=None)

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("account_email")
    @classmethod
    def _account_email(cls, value: str | None) -> str | None:
        if value is not None and _EMAIL.fullmatch(value) is None:
            raise ValueError("must be one e-mail address, such as owner@example.com")
        return value

    @field_validator("probe_seconds")
    @classmethod
    def _probe_seconds(cls, value: int) -> int:
        if value and (60 % value if value < 60 else value % 60 or 3600 % value):  # noqa: PLR2004  a clock's numbers
            raise ValueError("must be 0, a divisor of 60, or whole minutes that divide an hour, such as 60, 300 or 600")
        return value

    @field_validator("sentry_dsn")
    @classmethod
    def _dsn(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value else ""
        if text and not (is_http(text) and urlsplit(text).username and urlsplit(text).path.strip("/")):
            raise ValueError("must be an address such as https://KEY@HOST/PROJECT, as Sentry shows it")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str | None) -> str | None:
        for one in parse_partitions(value) if value is not None else ():
            try:
                redis_address.check_certificates(redis_address.parse(one.url))
            except redis_address.AddressError as error:
                raise redis_address.AddressError(one.named(error, value or "")) from None
        return value

    @field_validator("openai_base_url")
    @classmethod
    def _base_url(cls, value: str | None) -> str | None:
        if value is not None and not is_http(value):
            raise ValueError(
                "must be an http:// or https:// address, with a port from 1 to 65535 if it has one, "
                "such as https://api.openai.com/v1"
            )
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
        *("encryption_keys", "audit_public_keys", "webhook_ports", "webhook_schedule", "trusted_proxies"),
        "shared_provider_state",
        "new_apps_partitions",
        "webhook_nat64_prefixes",
        "cors_origins",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(k.strip() for k in value.split(",") if k.strip()) if isinstance(value, str) else value

    @field_validator("encryption_keys")
    @classmethod
    def _key_sizes(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, key in enumerate(value, 1):
            if not is_encryption_key(key.get_secret_value()):
                raise ValueError(
                    f"key {number} is not urlsafe base64 of 32 bytes; `vigil keys generate-encryption` makes one"
                )
        if len({key.get_secret_value().rstrip("=") for key in value}) < len(value):
            raise ValueError("the same key is given twice")
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
        if not key:  # with an empty key anybody could sign as the provider
            raise ValueError("must not be empty; leave it out and POST /hooks/openai is closed")
        return long_enough(value, key, "copy it whole, as the provider showed it")

    @field_validator("identifier_secret")
    @classmethod
    def _identifier_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        return long_enough(value, value.get_secret_value().strip().encode(), "`openssl rand -hex 32` makes one")

    @property
    def account_secrets(self) -> Mapping[str, SecretStr]:
        return self._account_secrets  # provider_accounts.py reads them

    def with_account_secrets(self, secrets: Mapping[str, SecretStr]) -> Settings:
        """Return these settings with the keys and webhook secrets of accounts, by the names of their settings."""
        changed = self.model_copy()
        changed._account_secrets = dict(secrets)  # noqa: SLF001
        return changed

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """Return every store of the deployment, home first; without an address the embedded server of the folder."""
        return self._partitions or parse_partitions(
            self.redis_url or redis_address.socket_address(socket_path(self.data_dir))
        )

    @property
    def partition(self) -> Partition:
        """Return the store that these settings are for; home, unless `of` made them."""
        return self._partition or self.partitions[0]

    def of(self, partition: Partition) -> Settings:
        """Return the settings for one of the partitions: with its address alone, and with files of its own."""
        known = self.partitions
        changed: dict[str, object] = {} if self.redis_url in (None, partition.url) else {"redis_url": partition.url}
        if not partition.is_home:
            if self.archive is not None:
                changed["archive"] = f"{self.archive.rstrip('/')}/partitions/{partition.name}"
            changed |= partition.files(store_mark=self.mark_file, audit_checkpoints=self.audit_checkpoints)
        made = self.model_copy(update=changed)
        made._partitions, made._partition = known, partition  # noqa: SLF001
        return made

    @property
    def store_url(self) -> str:
        """Return the address of Redis: the one that is set, else that of the embedded server of the data folder."""
        return self.partition.url

    @property
    def body_limit(self) -> int:
        return self.max_body_bytes or 2**20  # beside the images and files of a create

    @property
    def media_body_limit(self) -> int:
        return self.max_body_bytes or 32 * 2**20

    @property
    def mark_file(self) -> Path:
        """Return the file that keeps the mark of the store: the one that is set, else one of the data folder."""
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
        for network in value:
            try:
                ip_network(network)
            except ValueError:
                raise ValueError("must be addresses or networks such as 10.0.0.0/8, separated by commas") from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if re.fullmatch(_ORIGIN, origin) is None:
                raise ValueError(
                    "must be origins as a browser sends them, such as https://app.example or http://localhost:5173: "
                    "lower case, no path, no default port, no *"
                )
        return value

    @field_validator("root_path")
    @classmethod
    def _root_path(cls, value: str) -> str:
        path = value.rstrip("/")
        if re.fullmatch(ROOT_PATH, path) is None:
            raise ValueError("must be a path such as /api/vigil: a slash first, no query and no escapes")
        return path

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        found = re.fullmatch(r"(https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)(/.*)?", value.strip())
        path = (found[2] or "").rstrip("/") if found else "?"
        if found is None or re.fullmatch(ROOT_PATH, path) is None:
            raise ValueError("must be an address such as https://vigil.example/api: no user, query or escapes")
        return found[1] + path

    @field_validator("webhook_nat64_prefixes")
    @classmethod
    def _nat64_prefixes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                prefix = IPv6Network(text)
            except ValueError:
                prefix = IPv6Network("::/0")
            if prefix.prefixlen not in NAT64_PREFIX_LENGTHS or prefix.network_address.packed[8]:
                lengths = ", ".join(f"/{length}" for length in NAT64_PREFIX_LENGTHS)
                raise ValueError(
                    f"must be IPv6 prefixes of NAT64, separated by commas, such as 2001:db8:64::/96: of the lengths "
                    f"{lengths}, with bits 64 to 71 zero (RFC 6052)"
                )
        return value

    @field_validator("webhook_schedule")
    @classmethod
    def _delays(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not 1 <= len(value) <= _MAX_WEBHOOK_DELAYS or not all(0 <= delay <= _MAX_WEBHOOK_DELAY_S for delay in value):
            raise ValueError(
                f"must be 1 to {_MAX_WEBHOOK_DELAYS} numbers of seconds of at most 30 days, separated by commas"
            )
        return value

    @property
    def own_models_file(self) -> Path:
        """Return the file that takes the place of the models that ship with Vigil; it may be missing in data_dir."""
        return self.models_file or self.data_dir / "models.toml"

    @property
    def catalogue_path(self) -> Path:
        """Return the file that the models are read from now."""
        own = self.own_models_file
        return own if self.models_file is not None or os.path.exists(own) else shipped_models_file()  # noqa: PTH110  False where it may not be looked at

    def catalogue(self) -> Catalogue:
        """Return the models of `models_file`, else those that were installed in data_dir or ship with Vigil."""
        return read_catalogue(self.catalogue_path, unknown_checked=self.unknown_models_checked)
