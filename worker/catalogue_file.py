"""Reads a models file: its text, and the catalogue in it. Which file it is, the settings say."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Final

from worker.jobs.catalogue import Catalogue, parse
from worker.jobs.errors import SettingsError

_MAX_MODELS_FILE_BYTES: Final = 2**20


def read_catalogue(path: Path, *, unknown_checked: bool = False) -> Catalogue:
    """Return the models of a file. Raises SettingsError, which lists every fault and names the file."""
    return parse_models(read_models_text(path), path, unknown_checked=unknown_checked)


def read_models_text(path: Path) -> bytes:
    """Return what is in a models file. Raises SettingsError if it can't be read or is too large to be one."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_MODELS_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError([f"VIGIL_MODELS_FILE: {path} can't be read ({error.strerror})"]) from None
    if len(raw) > _MAX_MODELS_FILE_BYTES:
        raise SettingsError([f"{path} is larger than {_MAX_MODELS_FILE_BYTES} bytes, so it is no models file"])
    return raw


def parse_models(raw: bytes, path: Path, *, unknown_checked: bool = False) -> Catalogue:
    """Return the catalogue of a models file's text. Raises SettingsError, which lists every fault."""
    try:
        table = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError([f"VIGIL_MODELS_FILE: {path} is not TOML: {error}"]) from None
    except ValueError as error:  # a date that no calendar has
        raise SettingsError([f"VIGIL_MODELS_FILE: {path} has a value that can't be read: {error}"]) from None
    return parse(table, unknown_checked=unknown_checked)


def shipped_models_file() -> Path:
    """Return the path of models.toml: beside the code in a checkout, under share/vigil in an installation."""
    beside = Path(__file__).resolve().parent.parent / "models.toml"
    return beside if beside.exists() else Path(sys.prefix) / "share" / "vigil" / "models.toml"
