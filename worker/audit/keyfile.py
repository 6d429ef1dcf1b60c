"""Loads the signing key of this machine: the given one, or one that is created once in a file of mode 600.

It is not kept in Redis: whoever can write the trail must not be able to sign it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from worker.audit.keys import Signer
from worker.audit.keytext import SIZE, as_text, from_text

FILE_NAME: Final = "audit.key"


def load_or_create(given: str | None, folder: Path, random_bytes: Callable[[int], bytes] | None) -> Signer | None:
    """Return the signer of the given key or of the folder's key; create it with `random_bytes`, or return None.

    Raise ValueError if the key can't be used, OSError if the file can't be read or created.
    """
    if given is not None:
        return Signer(from_text(given))
    path = folder / FILE_NAME
    with contextlib.suppress(FileNotFoundError):
        return Signer(from_text(path.read_text(encoding="ascii")))
    if random_bytes is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{FILE_NAME}.{random_bytes(8).hex()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(as_text(random_bytes(SIZE)) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)  # atomic, and the first one wins
    finally:
        fresh.unlink()
    return Signer(from_text(path.read_text(encoding="ascii")))
