"""Copy the data of a running Valkey or Redis into a folder, and put such a copy in place again.

    ops/backup.py save DATA TARGET      address: VALKEY_PORT or VALKEY_URL; password of `admin`: the file PASSWORD_FILE
    ops/backup.py restore TARGET DATA   the server must be stopped, and DATA without an append-only file

A copy is the append-only file as it was at one moment: a rewrite, which would change the list of its parts meanwhile,
is held off until the copy is done. It has no secrets: without the master keys its content can't be read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis, RedisError

SUMS = "SHA256SUMS"
REWRITE = "auto-aof-rewrite-percentage"
PATIENCE_S = 600


def connection() -> Redis:
    """Return a client of the server, as its user `admin`."""
    env = os.environ  # noqa: TID251  Vigil's own settings play no part here
    password = Path(env["PASSWORD_FILE"]).read_text().strip() if env.get("PASSWORD_FILE") else None
    url = env.get("VALKEY_URL") or f"redis://127.0.0.1:{env.get('VALKEY_PORT', '6379')}/0"
    return Redis.from_url(url, username="admin" if password else None, password=password, decode_responses=True)


@contextmanager
def without_rewrites(server: Redis) -> Iterator[None]:
    """Hold off rewrites of the append-only file; one that runs ends first."""
    usual = server.config_get(REWRITE)[REWRITE]
    server.config_set(REWRITE, 0)
    try:
        end = time.monotonic() + PATIENCE_S
        while True:
            state = server.info("persistence")
            if not state["aof_enabled"]:
                sys.exit("the server keeps no append-only file: there is nothing to copy")
            if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
                break
            if time.monotonic() > end:
                sys.exit("the server still rewrites its append-only file after ten minutes: try again later")
            time.sleep(0.1)
        yield
    finally:
        server.config_set(REWRITE, usual)


def save(data: Path, target: Path) -> None:
    """Copy the append-only file in the data folder to the target folder, which must not exist."""
    if target.exists():
        sys.exit(f"{target} exists already: name a new folder for each copy")
    server = connection()
    place = data / server.config_get("appenddirname")["appenddirname"]
    if not place.is_dir():
        sys.exit(f"{place} does not exist: is {data} the data folder of this server?")
    os.umask(0o077)
    with without_rewrites(server):
        shutil.copytree(place, target / place.name)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    rows = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(target)}" for path in files]
    (target / SUMS).write_text("\n".join(rows) + "\n")
    print(f"copied {len(files)} files, {sum(path.stat().st_size for path in files):,} bytes, to {target}")


def restore(target: Path, data: Path) -> None:
    """Check the copy and put it into the data folder."""
    try:
        connection().ping()
    except (RedisError, OSError):
        pass
    else:
        sys.exit("the server still runs: stop it first")
    try:
        rows = [line.split("  ", 1) for line in (target / SUMS).read_text().splitlines()]
    except OSError:
        sys.exit(f"{target} is no copy that ops/backup.py made: it has no {SUMS}")
    for digest, name in rows:
        path = target / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            sys.exit(f"{path} is not what was copied: take another copy")
    folders = sorted({Path(name).parts[0] for _, name in rows})
    for folder in folders:
        if (data / folder).exists():
            sys.exit(f"{data / folder} exists: move it away first, it may be newer than the copy")
    os.umask(0o077)
    for folder in folders:
        shutil.copytree(target / folder, data / folder)
    print(f"restored {len(rows)} files to {data}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["save", data_folder, target_folder]:
            try:
                save(Path(data_folder), Path(target_folder))
            except (RedisError, OSError) as error:
                sys.exit(f"nothing was copied: {error}")
        case ["restore", target_folder, data_folder]:
            try:
                restore(Path(target_folder), Path(data_folder))
            except OSError as error:
                sys.exit(f"the copy is not restored: {error}")
        case _:
            sys.exit((__doc__ or "").split("\n\n", 1)[1].rstrip())
