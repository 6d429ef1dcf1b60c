"""What `vigil submit` is given: the prompt from wherever it comes, and KEY=VALUE words."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Final, cast

from worker.cli.errors import USAGE, CliError

_PAIR: Final = re.compile(r"([^=\s]+)=(.*)", re.DOTALL)


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The text of an argument, a file or stdin; CliError when there is none, or two."""
    if prompt is not None and file is not None:
        raise CliError("give the prompt as an argument or with --file, not both", USAGE)
    try:
        if file is not None and str(file) != "-":
            text = file.read_text(encoding="utf-8")
        elif prompt is not None and prompt != "-":
            text = prompt
        elif prompt is None and file is None and sys.stdin.isatty():
            raise CliError("say what to ask: vigil submit PROMPT, --file FILE, or pipe it in", USAGE)
        else:
            text = sys.stdin.buffer.read().decode("utf-8")
        text.encode("utf-8")
    except OSError as error:
        raise CliError(f"{file} can't be read: {error.strerror}", USAGE) from None
    except UnicodeError:
        raise CliError("the prompt is not UTF-8 text", USAGE) from None
    if not text.strip():
        raise CliError("the prompt is empty", USAGE)
    return text


def pairs(option: str, words: list[str]) -> list[tuple[str, str]]:
    """KEY=VALUE words as pairs; CliError for other words, without their values."""
    found = [(word, _PAIR.fullmatch(word)) for word in words]
    if wrong := [word.partition("=")[0] for word, match in found if match is None]:
        raise CliError(f"{option} takes KEY=VALUE, not {', '.join(repr(w) for w in wrong)}", USAGE)
    return [cast("tuple[str, str]", match.groups()) for _, match in found if match]


def as_value(name: str, text: str) -> object:
    """The JSON behind `text`; CliError when it is none."""
    try:
        return json.loads(text)
    except ValueError:
        hint = f"; a text needs quotes: {name}='\"…\"'"
        raise CliError(f"--param {name}: the value is not JSON{hint}", USAGE) from None
