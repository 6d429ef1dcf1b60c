"""The URL and key of the client commands: VIGIL_URL and VIGIL_API_KEY, or those that a local `vigil up` saved."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.cli.errors import EXIT_USAGE, CliError
from worker.client.environment import DEFAULT_URL, is_http_url


class CommandSettings(BaseSettings):
    """The settings of the client commands; the server's settings may be wrong or missing."""

    model_config = SettingsConfigDict(
        env_prefix="VIGIL_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    url: str | None = None
    api_key: SecretStr | None = None
    data_dir: Path = Path(".vigil")


@dataclass(frozen=True, slots=True)
class Profile:
    """The URL of an API and its key, hidden in a repr. `saved_by_up`: the file of `vigil up` that had the key."""

    url: str
    key: SecretStr | None
    saved_by_up: Path | None = None


def profile_file(data_dir: Path) -> Path:
    """Return the file in which `vigil up` saves its URL and key for the other commands."""
    return data_dir / "cli.json"


def save_profile(data_dir: Path, url: str, key: str) -> None:
    """Save URL and key for the other commands, readable only for this user."""
    path = profile_file(data_dir)
    fresh = path.with_suffix(f".{os.getpid()}.new")  # two processes may start in one folder
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({"url": url, "key": key}, file)
    fresh.replace(path)


def saved_profile(data_dir: Path) -> Profile | None:
    """Return what `vigil up` saved here, or None if there is nothing that can be read."""
    path = profile_file(data_dir)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return Profile(str(body["url"]), SecretStr(str(body["key"])), path)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_profile(default_url: str = DEFAULT_URL) -> Profile:
    """Return URL and key: the variables first, then what a local `vigil up` saved, then `default_url` without a key.

    Raise CliError if they are wrong.
    """
    try:
        settings = CommandSettings()
    except ValidationError as error:
        names = ", ".join(f"VIGIL_{str(fault['loc'][0]).upper()}" for fault in error.errors(include_input=False))
        raise CliError(f"wrong settings: {names}", EXIT_USAGE) from None
    saved = saved_profile(settings.data_dir)
    if settings.url is not None and not is_http_url(settings.url):
        raise CliError(
            f"wrong settings: VIGIL_URL must be an http:// or https:// address such as {DEFAULT_URL}", EXIT_USAGE
        )
    url = (settings.url or (saved.url if saved else default_url)).rstrip("/").removesuffix("/v1")
    same = saved is not None and saved.url == url
    key = settings.api_key or (saved.key if saved and same else None)
    return Profile(url, key, saved.saved_by_up if saved and same and not settings.api_key else None)
