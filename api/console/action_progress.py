"""How far an action on many jobs has come. It is kept in the address of its page, so it survives a reload, a restart of
the API and another process. Pure.

It is signed for the session that began the action: a link that somebody else made shows nothing and starts nothing.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from api.schema.requests import ActionName
from api.schema.responses import JobActionRowView, JobActionsView

MAX_JOBS: Final = 10_000
"""On how many jobs one confirmed action acts at most."""
MAX_NAMED: Final = 50
"""Of how many jobs that refused the ids are kept: the address must pass every proxy."""
_MAC_BYTES: Final = 18
_PURPOSE: Final = b"action progress\0"


@dataclass(frozen=True, slots=True)
class Refusals:
    """The jobs that refused the action for one reason. `detail`: what the first one said."""

    code: str
    detail: str
    number: int


@dataclass(frozen=True, slots=True)
class ActionProgress:
    """An action on jobs that began, and its outcomes so far."""

    id: str
    action: ActionName
    filters: tuple[tuple[str, str], ...]
    """The jobs that it acts on; () = they were named one by one, and the first call did them all."""
    matched: int
    matched_all: bool
    """False: there were more than were counted."""
    started_ms: int
    at_ms: int
    done: int = 0
    unchanged: int = 0
    messages: int = 0
    refusals: tuple[Refusals, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    """The first jobs that refused it, each with the code."""
    cursor: str | None = None
    ended: bool = False

    @property
    def refused(self) -> int:
        """Return how many jobs refused it."""
        return sum(one.number for one in self.refusals)

    @property
    def handled(self) -> int:
        """Return how many jobs have an outcome."""
        return self.done + self.unchanged + self.refused

    @property
    def is_cut(self) -> bool:
        """Return whether it ended at the bound, so that there may be more jobs."""
        return self.ended and self.cursor is not None

    def after(self, part: JobActionsView, now_ms: int) -> ActionProgress:
        """Return the progress after one more part."""
        refused = [row for row in part["data"] if row["outcome"] == "refused"]
        # the ids of reruns are this action's own: one that was made before belongs to a part that was cut or sent twice
        repeated = sum(row["outcome"] == "unchanged" and "new_job" in row for row in part["data"])
        codes = [(row["id"], row.get("problem", {}).get("code", "")) for row in refused]
        moved = replace(
            self,
            at_ms=now_ms,
            done=self.done + part["done"] + repeated,
            unchanged=self.unchanged + part["unchanged"] - repeated,
            messages=self.messages + sum(row.get("messages", 0) for row in part["data"]),
            refusals=_counted(self.refusals, refused),
            failed=(*self.failed, *codes)[:MAX_NAMED],
            cursor=part["next_cursor"],
        )
        return replace(moved, ended=moved.cursor is None or moved.handled >= MAX_JOBS)

    def sealed(self, secret: str) -> str:
        """Return the text for an address, signed with the session's secret."""
        text = zlib.compress(json.dumps(asdict(self), separators=(",", ":")).encode(), 9)
        return f"{_encode(text)}.{_encode(_mac(secret, text))}"


def open_progress(secret: str, sealed: str) -> ActionProgress | None:
    """Return what the text says; None unless this session signed it."""
    text, _, mac = (_decode(part) for part in sealed.partition("."))
    if not text or not hmac.compare_digest(mac, _mac(secret, text)):
        return None
    kept = json.loads(zlib.decompress(text))  # of this process's own making, as the signature says
    kept["filters"] = tuple((name, value) for name, value in kept["filters"])
    kept["failed"] = tuple((job_id, code) for job_id, code in kept["failed"])
    kept["refusals"] = tuple(Refusals(**one) for one in kept["refusals"])
    return ActionProgress(**kept)


def _counted(before: Sequence[Refusals], rows: Sequence[JobActionRowView]) -> tuple[Refusals, ...]:
    counted = {one.code: one for one in before}
    for row in rows:
        problem = row.get("problem")
        code, detail = (problem["code"], problem["detail"]) if problem is not None else ("", "")
        known = counted.get(code, Refusals(code, detail, 0))
        counted[code] = replace(known, number=known.number + 1)
    return tuple(counted.values())


def _mac(secret: str, text: bytes) -> bytes:
    return hmac.digest(secret.encode(), _PURPOSE + text, "sha256")[:_MAC_BYTES]


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
