"""Keep what Vigil writes on this machine for its own user: files 0600, folders 0700, those of an earlier start too."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, Literal

UMASK: Final = 0o077
"""For processes that write such files."""
_MAX_SOCKET_PATH: Final = 100  # the kernel takes 107 bytes
_OWN: Final = (
    *("valkey.lock", "valkey.log", "cli.json", "cli.*.new", "store.json*", "store.external.json*", "encryption.*"),
    *("audit.key", "audit.*.new", "dump.rdb", "temp-*.rdb", "*.aof", "appendonlydir", "appendonlydir/*"),
)
"""What Vigil and its Valkey keep in a data folder; other files there may be somebody else's."""


def make_private(folder: Path) -> None:
    """Make the data folder, or take the rights of others from it and from what Vigil keeps in it.

    A folder that is also used for other things keeps its rights. Raises OSError when it can't be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_shared(folder):
        _tighten(folder)
    for pattern in _OWN:
        for path in folder.glob(pattern):
            _tighten(path)


def open_private(path: Path, mode: Literal["w", "ab"]) -> IO[Any]:
    """Open a file; one that does not exist is made for this user only."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))


def _tighten(path: Path) -> None:
    """Take the rights of group and others from a file or folder of this user; leave links and other users' alone."""
    with suppress(OSError):  # it is gone, or on a file system without rights
        found = path.lstat()
        if found.st_uid == os.geteuid() and (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            wanted = stat.S_IMODE(found.st_mode) & ~UMASK
            if wanted != stat.S_IMODE(found.st_mode):
                path.chmod(wanted)


def _is_shared(folder: Path) -> bool:
    """Return whether others may need this folder: a home, where the process was started, one with the sticky bit."""
    here = folder.resolve()
    around = {Path.cwd(), *Path.cwd().parents, Path("~").expanduser().resolve()}
    return here in around or bool(here.stat().st_mode & stat.S_ISVTX)


def socket_path(data_dir: Path) -> Path:
    """Return the socket of this data folder's server: inside it, or in a short private folder if that is too long."""
    inside = data_dir.resolve() / "valkey.sock"
    if len(os.fsencode(inside)) <= _MAX_SOCKET_PATH:
        return inside
    short = hashlib.sha256(os.fsencode(inside)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"vigil-{os.getuid()}-{short}" / "valkey.sock"
