"""Copies the seals to a file outside Redis: appended one a line and flushed to disk.

The file's lines are never changed: a seal that doesn't follow from the last one in the file isn't written.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from worker.audit.seals import BadSeal, Seal, parse

FILE_NAME: Final = "checkpoints.ndjson"
_CHUNK_BYTES: Final = 64 * 1024


def file_of(path: Path) -> Path:
    """Return the path itself, or the file of the standard name if it is a folder."""
    return path / FILE_NAME if path.is_dir() else path


def last_in(path: Path) -> Seal | None:
    """Return the file's last seal, or None without one; raise BadSeal if the last complete line is none."""
    try:
        with path.open("rb") as file:
            whole = [text for text in _tail(file).split(b"\n")[:-1] if text]
    except FileNotFoundError:
        return None
    return parse(whole[-1]) if whole else None  # (a line without its end was cut by a crash)


def _tail(file: BinaryIO) -> bytes:
    """Return the end of the file, with at least one complete line if there is one."""
    size, step = file.seek(0, os.SEEK_END), _CHUNK_BYTES
    while True:
        file.seek(max(0, size - step))
        tail = file.read()
        if step >= size or tail.count(b"\n") > 1:
            return tail
        step *= 8


def append(path: Path, seals: Sequence[Seal]) -> int:
    """Append the seals after the file's last one, flush them to disk and return their number.

    Raise BadSeal if they don't follow from it, OSError if the file can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # workers of one machine share the file
        last = last_in(path)
        _end_line(path, file.fileno())
        fresh = [seal for seal in seals if last is None or seal.number > last.number]
        if fresh and last is not None and fresh[0].body["previous"] != last.hash:
            raise BadSeal(f"checkpoint {fresh[0].number} does not follow from the one that was shipped before")
        file.writelines(seal.line + b"\n" for seal in fresh)
        file.flush()
        os.fsync(file.fileno())
    return len(fresh)


def _end_line(path: Path, descriptor: int) -> None:
    """Remove a line that a crash cut short, so that the next one begins a new line."""
    with path.open("rb") as file:
        tail = _tail(file)
        size = file.seek(0, os.SEEK_END)
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(descriptor, size - (len(tail) - tail.rfind(b"\n") - 1))


def read(path: Path) -> Iterator[bytes]:
    """Yield the lines of a shipped copy."""
    with path.open("rb") as file:
        for text in file:
            if text.endswith(b"\n") and text != b"\n":
                yield text[:-1]
