"""The mark of a store: what a process remembers outside Redis, to notice one that came back empty, older or another's.

It is the store's deployment id and the newest audit record that was read from it: every change of a job writes one in
its own commit, so a store that has lost a commit has lost a record. It is kept in a small file. No Redis here.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from worker.jobs.timestamps import iso_utc

COMPACT_STORE: Final = "-z"
"""How the deployment id of a store ends that was created by a release which reads compressed records."""

Reason = Literal["empty", "older", "other"]


@dataclass(frozen=True, slots=True)
class StoreMark:
    """A deployment, the id of its newest audit record ("" before the first), and its check counter."""

    deployment: str
    record: str = ""
    looks: int = 0


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """What a store answers: its deployment, whether it has the marked record, and the id accepted last."""

    deployment: str | None
    has_all: bool
    accepted: str | None = None


def judge(mark: StoreMark | None, answer: StoreAnswer) -> Reason | None:
    """Return why the store can't be the marked one; None when it is, or when there is no mark."""
    if mark is None or (answer.deployment and answer.deployment == answer.accepted != mark.deployment):
        return None
    if answer.deployment is not None and answer.deployment != mark.deployment:
        return "other"
    if answer.has_all:
        return None  # the id alone may have been removed
    return "empty" if answer.deployment is None else "older"


def accepted_deployment(random: str, held: str | None, mark: StoreMark | None) -> str:
    """Return a new deployment id for a store that holds the deployment `held`, made of `random` (hex).

    It says compressed only if what Redis holds and what this machine knew both said so: processes of an older release
    may be beside a plain one. Where Redis came back empty the mark decides.
    """
    known = [one for one in (held, mark.deployment if mark else None) if one]
    return random + COMPACT_STORE * (bool(known) and all(one.endswith(COMPACT_STORE) for one in known))


def describe(reason: Reason, mark: StoreMark, answer: StoreAnswer) -> str:
    """Say what happened and what to do, for operators."""
    known = f"deployment {mark.deployment}" + (f", records up to {_time(mark.record)}" if mark.record else "")
    what = {
        "empty": f"Redis came back empty: what was known here ({known}) is gone",
        "older": f"Redis came back older: it has lost records that were seen here ({known})",
        "other": f"Redis holds another deployment ({answer.deployment}) than was known here ({known})",
    }[reason]
    return (
        f"{what}. Nothing is read or written until its data is back, or until `vigil store accept` says that this "
        "store is meant; see ops/runbook/StoreChanged.md."
    )


def load(path: Path) -> StoreMark | None:
    """Read the mark from the file; None when there is no readable one. Raises OSError when the file can't be opened."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return StoreMark(str(body["deployment"]), str(body["record"]), int(body["looks"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def save(path: Path, mark: StoreMark, by: str = "") -> None:
    """Write the mark to the file, safe against a power cut; `by` keeps two writers apart. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{id(mark):x}{by}.new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(asdict(mark), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _time(record: str) -> str:
    return iso_utc(datetime.fromtimestamp(int(record.partition("-")[0]) / 1000, UTC), "seconds")
