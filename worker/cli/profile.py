"""Where the client commands go and with which key: VIGIL_URL and VIGIL_API_KEY, or what a local `vigil up` left."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.cli.errors import USAGE, CliError
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
    """Where Vigil answers and with which key; the key never shows in a repr."""

    url: str
    key: SecretStr | None
    left_by_up: Path | None = None


def kept_file(data_dir: Path) -> Path:
    """The file in which `vigil up` leaves its URL and key for the other commands."""
    return data_dir / "cli.json"


def keep(data_dir: Path, url: str, key: str) -> None:
    """Leave URL and key for the other commands, readable for this user alone."""
    path = kept_file(data_dir)
    fresh = path.with_suffix(f".{os.getpid()}.new")  # two may start in one folder
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({"url": url, "key": key}, file)
    fresh.replace(path)


def kept(data_dir: Path) -> Profile | None:
    """What `vigil up` left here, or None."""
    path = kept_file(data_dir)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return Profile(str(body["url"]), SecretStr(str(body["key"])), path)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_door() -> Profile:
    """Where the client commands go: the variables first, then what a local `vigil up` left."""
    try:
        settings = CommandSettings()
    except ValidationError as error:
        names = ", ".join(f"VIGIL_{str(fault['loc'][0]).upper()}" for fault in error.errors(include_input=False))
        raise CliError(f"wrong settings: {names}", USAGE) from None
    left = kept(settings.data_dir)
    if settings.url is not None and not is_http_url(settings.url):
        raise CliError(f"wrong settings: VIGIL_URL must be an http:// or https:// address such as {DEFAULT_URL}", USAGE)
    url = (settings.url or (left.url if left else DEFAULT_URL)).rstrip("/").removesuffix("/v1")
    same = left is not None and left.url == url
    key = settings.api_key or (left.key if left and same else None)
    return Profile(url, key, left.left_by_up if left and same and not settings.api_key else None)
