"""Reads the accounts at the provider: the one of OPENAI_API_KEY, and those of the file VIGIL_ACCOUNTS_FILE.

The file has no secret. An account's key and webhook secret are the settings VIGIL_ACCOUNT_<NAME>_API_KEY and
VIGIL_ACCOUNT_<NAME>_WEBHOOK_SECRET, or files that these name with _FILE behind them.
"""

from __future__ import annotations

import binascii
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from worker.jobs.account_name import DEFAULT_ACCOUNT, is_account_name
from worker.jobs.accounts import AccountBindings, read_bindings
from worker.jobs.catalogue import Catalogue
from worker.jobs.errors import SettingsError
from worker.setting_values import MIN_SECRET_BYTES, is_http, webhook_key
from worker.settings import Settings

Upstream = Literal["background", "stream", "chat"]

_MAX_FILE_BYTES: Final = 2**20
_MAX_ACCOUNTS: Final = 32
"""Each has its own connections, circuit, probes and metrics."""
_FILE: Final = "VIGIL_ACCOUNTS_FILE"
_REGIONAL_HOST: Final = re.compile(r"[a-z]{2}\.api\.openai\.com")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_TOP_KEYS: Final = ("accounts", "apps", "models", "families")
_SECRETS: Final = ("api_key", "webhook_secret")
_MODES: Final = ("background", "stream", "chat")


@dataclass(frozen=True, slots=True)
class ProviderAccount:
    """One account at the provider. `regional`: it processes in one region, which costs more."""

    name: str = DEFAULT_ACCOUNT
    organization: str | None = None
    project: str | None = None
    base_url: str | None = None
    upstream: Upstream = "background"
    regional: bool = False
    shared_state: tuple[str, ...] = ()
    """The names of this account's state that every app may use (VIGIL_SHARED_PROVIDER_STATE)."""
    api_key: SecretStr | None = field(default=None, repr=False)
    webhook_secret: SecretStr | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """Return the key as it is sent; "none" for a server that needs none."""
        return self.api_key.get_secret_value() if self.api_key is not None else "none"


@dataclass(frozen=True, slots=True)
class ProviderAccounts:
    """All accounts by name, `default` first, and which of them serves whom."""

    by_name: Mapping[str, ProviderAccount]
    bindings: AccountBindings = field(default_factory=AccountBindings)

    @property
    def several(self) -> bool:
        """Return whether there is another account than the default one."""
        return len(self.by_name) > 1

    def of(self, app: str, model: str, catalogue: Catalogue) -> ProviderAccount:
        """Return the account that serves the app's requests to this model."""
        return self.by_name[self.bindings.account_of(app, model, catalogue)]

    def for_app(self, app: str) -> list[ProviderAccount]:
        """Return every account that may serve a request of the app."""
        names = self.bindings.accounts_of(app)
        return [account for name, account in self.by_name.items() if name in names]

    def require_keys(self) -> None:
        """Raise SettingsError, which lists every account without a key, except the default one."""
        faults = [
            f"{secret_variable(name, 'api_key')}: account {name} of {_FILE} has no key; for a server that needs none, "
            "set it to none"
            for name, account in self.by_name.items()
            if account.api_key is None and name != DEFAULT_ACCOUNT
        ]
        if faults:
            raise SettingsError(faults)


def secret_variable(account: str, secret: str) -> str:
    """Return the name of the setting that has this secret of an account."""
    return f"VIGIL_ACCOUNT_{account.upper()}_{secret.upper()}"


def provider_accounts(settings: Settings) -> ProviderAccounts:
    """Return the accounts of the settings. Raises SettingsError, which lists every fault and shows no secret."""
    default = ProviderAccount(
        organization=settings.openai_org_id,
        project=settings.openai_project_id,
        base_url=settings.openai_base_url,
        upstream=settings.upstream,
        regional=_regional(settings, settings.openai_base_url),
        shared_state=settings.shared_provider_state,
        api_key=settings.openai_api_key,
        webhook_secret=settings.openai_webhook_secret,
    )
    if settings.accounts_file is None:
        strays = [f"{name}: set {_FILE}, which names the accounts" for name in sorted(settings.account_secrets)]
        if strays:
            raise SettingsError(strays)
        return ProviderAccounts({DEFAULT_ACCOUNT: default})
    table = _read_file(settings.accounts_file)
    bindings, shapes = read_bindings(table)
    faults = [f"unknown key {name!r}; known: {', '.join(_TOP_KEYS)}" for name in sorted(set(table) - set(_TOP_KEYS))]
    accounts, wrong = {DEFAULT_ACCOUNT: default}, list[str]()
    rows = table.get("accounts", {})
    if not isinstance(rows, Mapping) or len(rows) > _MAX_ACCOUNTS:
        faults.append(f"[accounts.NAME] is a table for each account, of at most {_MAX_ACCOUNTS}")
        rows = {}
    for name, row in rows.items():
        try:
            accounts[name] = _account(settings, name, row, wrong)
        except ValueError as fault:
            faults.append(f"account {name!r}: {fault}")
    named = {*accounts, *rows}  # an account with a fault is reported once
    faults += shapes
    faults += bindings.faults(named, settings.catalogue(), allow_unknown_models=settings.allow_unknown_models)
    known = {secret_variable(name, secret) for name in rows for secret in _SECRETS}
    strays = [
        f"{name}: {settings.accounts_file} has no such account"
        for name in sorted(settings.account_secrets)
        if name not in known
    ]
    if faults or wrong or strays:
        raise SettingsError([*(f"{_FILE}: {settings.accounts_file}: {one}" for one in faults), *wrong, *strays])
    return ProviderAccounts(accounts, bindings)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError([f"{_FILE}: {path} can't be read ({error.strerror})"]) from None
    if len(raw) > _MAX_FILE_BYTES:
        raise SettingsError([f"{_FILE}: {path} is larger than {_MAX_FILE_BYTES} bytes"])
    try:
        return tomllib.loads(raw.decode())
    except (ValueError, RecursionError):  # its message may quote a line, which may hold a key that belongs elsewhere
        raise SettingsError([f"{_FILE}: {path} is not TOML"]) from None


def _account(settings: Settings, name: str, row: object, wrong: list[str]) -> ProviderAccount:
    """Return the account of a table; add faults of its secrets to `wrong`. Raises ValueError for other faults."""
    if name == DEFAULT_ACCOUNT:
        raise ValueError("its settings are OPENAI_API_KEY, OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_BASE_URL")
    if not is_account_name(name):
        raise ValueError("a name has at most 32 lower case letters, digits and _, a letter first")
    if not isinstance(row, Mapping):
        raise ValueError("must be a table")  # noqa: TRY004  a fault of the file
    for secret in _SECRETS:
        if secret in row:
            raise ValueError(f"a secret does not belong into this file; set {secret_variable(name, secret)}")
    given = dict(_checked(row))
    base_url = given.pop("base_url", settings.openai_base_url)
    regional = given.pop("regional_processing", None)
    webhook_secret = settings.account_secrets.get(secret_variable(name, "webhook_secret"))
    if (fault := _webhook_fault(webhook_secret)) is not None:
        wrong.append(f"{secret_variable(name, 'webhook_secret')}: {fault}")
    return ProviderAccount(
        name=name,
        base_url=base_url,
        regional=_regional(settings, base_url) if regional is None else regional,
        upstream=given.pop("upstream", settings.upstream),
        shared_state=tuple(given.pop("shared_provider_state", ())),
        api_key=settings.account_secrets.get(secret_variable(name, "api_key")),
        webhook_secret=webhook_secret,
        **given,
    )


def _checked(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the members of an account's table. Raises ValueError for one that is unknown or has a wrong value."""
    for key, value in row.items():
        match key:
            case "organization" | "project":
                fits, shape = (
                    isinstance(value, str) and _ID.fullmatch(value) is not None,
                    "an id such as org-…",
                )
            case "base_url":
                fits, shape = isinstance(value, str) and is_http(value), "an http:// or https:// address"
            case "upstream":
                fits, shape = value in _MODES, f"one of {', '.join(_MODES)}"
            case "regional_processing":
                fits, shape = isinstance(value, bool), "true or false"
            case "shared_provider_state":
                fits = isinstance(value, list) and all(isinstance(one, str) and one for one in value)
                shape = "a list of names"
            case _:
                known = "organization, project, base_url, upstream, regional_processing, shared_provider_state"
                raise ValueError(f"unknown key {key!r}; known: {known}")
        if not fits:
            raise ValueError(f"`{key}` is {shape}")
        yield key, value


def _webhook_fault(secret: SecretStr | None) -> str | None:
    if secret is None:
        return None
    try:
        long_enough = len(webhook_key(secret.get_secret_value())) >= MIN_SECRET_BYTES
    except binascii.Error:
        return "what follows whsec_ is not base64; copy it as the provider showed it"
    return None if long_enough else "is too short; copy it whole, as the provider showed it"


def _regional(settings: Settings, base_url: str | None) -> bool:
    """Return whether the provider processes in one region, which costs more: as set, else by its address."""
    if settings.regional_processing is not None:
        return settings.regional_processing
    return _REGIONAL_HOST.fullmatch(urlsplit(base_url or "").hostname or "") is not None
