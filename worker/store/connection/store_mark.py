"""What a process remembers of its store outside Redis, so that one that came back empty, older or another's is noticed.

The mark is the store's deployment id and the newest audit record that was seen in it: every change of a job writes one
in its own commit, so a store that has lost a commit has lost a record. It is kept in a small file.
Must not know: Redis.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

Reason = Literal["empty", "older", "other"]


@dataclass(frozen=True, slots=True)
class StoreMark:
    """A deployment, the id of its newest audit record ("" before the first), and how often it was looked at."""

    deployment: str
    record: str = ""
    looks: int = 0


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """What a store answers: its deployment, whether it has what was marked, and which id operators accepted last."""

    deployment: str | None
    has_all: bool
    accepted: str | None = None


def judge(mark: StoreMark | None, seen: StoreAnswer) -> Reason | None:
    """Why the store can't be the one that left the mark; None when it is that one, or nothing is known of it."""
    if mark is None or (seen.deployment and seen.deployment == seen.accepted != mark.deployment):
        return None
    if seen.deployment is not None and seen.deployment != mark.deployment:
        return "other"
    if seen.has_all:
        return None  # the id alone may have been removed
    return "empty" if seen.deployment is None else "older"


def describe(reason: Reason, mark: StoreMark, seen: StoreAnswer) -> str:
    """What happened and what to do, for operators."""
    known = f"deployment {mark.deployment}" + (f", records up to {_time(mark.record)}" if mark.record else "")
    what = {
        "empty": f"Redis came back empty: what was known here ({known}) is gone",
        "older": f"Redis came back older: it has lost records that were seen here ({known})",
        "other": f"Redis holds another deployment ({seen.deployment}) than was known here ({known})",
    }[reason]
    return (
        f"{what}. Nothing is read or written until its data is back, or until `vigil store accept` says that this "
        "store is meant; see ops/runbook/StoreChanged.md."
    )


def load(path: Path) -> StoreMark | None:
    """The mark of the file; None when there is none that can be read. Raises OSError when the file can't be opened."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return StoreMark(str(body["deployment"]), str(body["record"]), int(body["looks"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def save(path: Path, mark: StoreMark, by: str = "") -> None:
    """The file holds this mark, whole, also after a power cut; `by` keeps two writers apart. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{id(mark):x}{by}.new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(asdict(mark), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _time(record: str) -> str:
    return datetime.fromtimestamp(int(record.partition("-")[0]) / 1000, UTC).isoformat(timespec="seconds")
