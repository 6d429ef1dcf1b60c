"""The copy of the seals outside Redis: a file to which they are appended, flushed to disk, one a line.

What was shipped is never changed: a seal that doesn't follow from the last one in the file isn't written.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from worker.audit.seals import BadSeal, Seal, parse

NAME: Final = "checkpoints.ndjson"
_STEP: Final = 64 * 1024


def file_of(path: Path) -> Path:
    """The file itself, or the one of this name in a folder."""
    return path / NAME if path.is_dir() else path


def last_in(path: Path) -> Seal | None:
    """The last seal of the file, None when it is empty or not there; BadSeal when the last whole line is none."""
    try:
        with path.open("rb") as file:
            whole = [text for text in _tail(file).split(b"\n")[:-1] if text]
    except FileNotFoundError:
        return None
    return parse(whole[-1]) if whole else None  # (a line without its end was cut by a crash)


def _tail(file: BinaryIO) -> bytes:
    """The end of the file, with at least one whole line if there is one."""
    size, step = file.seek(0, os.SEEK_END), _STEP
    while True:
        file.seek(max(0, size - step))
        tail = file.read()
        if step >= size or tail.count(b"\n") > 1:
            return tail
        step *= 8


def append(path: Path, seals: Sequence[Seal]) -> int:
    """How many of the seals were appended: those behind the file's last one. On disk when it returns.

    Raises BadSeal when they don't follow from it, OSError when the file can't be written.
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
    """A line that a crash cut short is taken away, so that the next one begins where it should."""
    with path.open("rb") as file:
        tail = _tail(file)
        size = file.seek(0, os.SEEK_END)
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(descriptor, size - (len(tail) - tail.rfind(b"\n") - 1))


def read(path: Path) -> Iterator[bytes]:
    """The lines of a shipped copy."""
    with path.open("rb") as file:
        for text in file:
            if text.endswith(b"\n") and text != b"\n":
                yield text[:-1]
