"""How far the archive has the trail, as Redis remembers it; the manifest in the archive is the proof.

A record up to `trimmed` is read from the archive, because Redis may not have it any more; a later one is in Redis.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit.archive_entry import ArchiveEntry
from worker.audit.chain import GENESIS, canonical, stream_id
from worker.store import keys
from worker.store.connection.locks import try_lock
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors

_NOTHING: Final = "0-0"
_NAMES: Final = (
    "entry",
    "entry_hash",
    "seal",
    "seal_hash",
    "last",
    "trimmed",
    "cleared",
    "removed",
    "retention",
    "kept",
    "address",
)


@dataclass(frozen=True, slots=True)
class ArchiveState:
    """`entry`, `entry_hash`: the newest entry of the manifest; `seal`, `seal_hash`, `last`: how far it goes.

    `trimmed`: the id up to which records may have left Redis; `cleared`: up to which all that may leave has. `removed`:
    up to which retention removed segments, by the entry `retention`, but those of the numbers in `kept`, which a hold
    keeps. `line`: as stored.
    """

    entry: int = 0
    entry_hash: str = GENESIS
    seal: int = 0
    seal_hash: str = GENESIS
    last: str = _NOTHING
    trimmed: str = _NOTHING
    cleared: str = _NOTHING
    removed: str = _NOTHING
    retention: int = 0
    kept: tuple[int, ...] = ()
    address: str = ""
    line: bytes = b""

    def after(self, entry: ArchiveEntry, address: str) -> ArchiveState:
        """Return the state with one more entry."""
        body = entry.body
        return self._changed(
            entry=entry.number,
            entry_hash=entry.hash,
            seal=int(body["seal"]),
            seal_hash=str(body["seal_hash"]),
            last=entry.last,
            address=address,
            removed=str(body.get("upto", self.removed)),
            retention=entry.number if entry.kind == "retention" else self.retention,
            kept=tuple(body.get("kept", self.kept)),
        )

    def trimmed_to(self, place: str, *, cleared: bool = False) -> ArchiveState:
        """Return the state in which records up to here may have left Redis, or (`cleared`) have."""
        return self._changed(trimmed=place, **({"cleared": place} if cleared else {}))

    def moved_to(self, address: str) -> ArchiveState:
        """Return the state with another address of the archive."""
        return self._changed(address=address)

    @property
    def has_left(self) -> bool:
        """Return whether any record has left Redis."""
        return self.trimmed != _NOTHING

    def is_over(self, number: int, last: str) -> bool:
        """Return whether retention has removed this segment, whose last record this is."""
        return stream_id(last) <= stream_id(self.removed) and number not in self.kept

    def has_left_redis(self, place: str) -> bool:
        """Return whether a record may be in the archive alone."""
        return stream_id(place) <= stream_id(self.trimmed)

    def _changed(self, **new: Any) -> ArchiveState:
        body = {name: getattr(self, name) for name in _NAMES} | new
        return ArchiveState(**body, line=canonical(body))


class ArchiveStates:
    """The state in Redis."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        self._script: Any = script(redis, "archive/set_state")

    async def try_lock(self, seconds: float) -> bool:
        """Return True for one of all workers, at most once in so many seconds."""
        return await try_lock(self._redis, keys.ARCHIVING_LOCK, seconds)

    async def get(self) -> ArchiveState | None:
        """Return the state, or None while nothing is archived, or when it can't be read: then it is found anew."""
        async with store_errors("read how far the archive goes", keys.ARCHIVE):
            line: bytes | None = await self._redis.get(keys.ARCHIVE)
        return parse_state(line)

    async def replace(self, before: ArchiveState | None, state: ArchiveState) -> bool:
        """Store a state in the place of the one that was read; return False when another worker was quicker."""
        async with store_errors("write how far the archive goes", keys.ARCHIVE):
            args = [before.line if before is not None else b"", state.line]
            return bool(await self._script(keys=[keys.ARCHIVE], args=args))


def parse_state(line: bytes | str | None) -> ArchiveState | None:
    """Return the state of a stored value, or None if it is none."""
    try:
        found = json.loads(line or b"")
        body = {name: found[name] for name in _NAMES}
        body["kept"] = tuple(int(one) for one in body["kept"])
        state = ArchiveState(**body, line=line.encode() if isinstance(line, str) else line or b"")
        for place in (state.last, state.trimmed, state.removed):
            stream_id(place)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return state
