"""Reads the arguments of commands: a prompt from an argument, a file or stdin, and KEY=VALUE pairs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Final, cast

from worker.cli.errors import EXIT_USAGE, CliError

_PAIR: Final = re.compile(r"([^=\s]+)=(.*)", re.DOTALL)


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """Return the text of an argument, a file or stdin. Raise CliError if there is none, or more than one."""
    if prompt is not None and file is not None:
        raise CliError("give the prompt as an argument or with --file, not both", EXIT_USAGE)
    try:
        if file is not None and str(file) != "-":
            text = file.read_text(encoding="utf-8")
        elif prompt is not None and prompt != "-":
            text = prompt
        elif prompt is None and file is None and sys.stdin.isatty():
            raise CliError("there is no prompt: vigil submit PROMPT, --file FILE, or pipe it in", EXIT_USAGE)
        else:
            text = sys.stdin.buffer.read().decode("utf-8")
        text.encode("utf-8")
    except OSError as error:
        raise CliError(f"{file} can't be read: {error.strerror}", EXIT_USAGE) from None
    except UnicodeError:
        raise CliError("the prompt is not UTF-8 text", EXIT_USAGE) from None
    if not text.strip():
        raise CliError("the prompt is empty", EXIT_USAGE)
    return text


def parse_pairs(option: str, texts: list[str]) -> list[tuple[str, str]]:
    """Split KEY=VALUE arguments into pairs. Raise CliError for others, without quoting their values."""
    found = [(text, _PAIR.fullmatch(text)) for text in texts]
    if wrong := [text.partition("=")[0] for text, match in found if match is None]:
        raise CliError(f"{option} takes KEY=VALUE, not {', '.join(repr(name) for name in wrong)}", EXIT_USAGE)
    return [cast("tuple[str, str]", match.groups()) for _, match in found if match]


def check_idempotency_key(key: str | None) -> str | None:
    """Return the key. Raise CliError for one that can't be sent."""
    if key is not None and (not key.isascii() or not key.isprintable() or not key):
        raise CliError("--idempotency-key must be 1-255 visible ASCII characters", EXIT_USAGE)
    return key


def parse_json(name: str, text: str) -> object:
    """Parse the JSON value of a --param. Raise CliError if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        hint = f"; a text needs quotes: {name}='\"…\"'"
        raise CliError(f"--param {name}: the value is not JSON{hint}", EXIT_USAGE) from None
