"""Set a key of another type aside before it is used, where losing what it holds is no harm: a list for people."""

from __future__ import annotations

from collections.abc import Mapping

from arq.connections import ArqRedis

from worker.jobs.errors import RecordUnreadable
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
from worker.store.values import report_unreadable


async def set_aside_wrong_types(redis: ArqRedis, types: Mapping[str, str]) -> None:
    """Set aside and report each of these keys that has another type than the one given here."""
    async with store_errors("check the types of keys"):
        wrong = await script(redis, "lifecycle/check_types")(keys=list(types), args=list(types.values()))
    for name in wrong:
        report_unreadable(RecordUnreadable(name.decode(errors="replace"), "wrong_type"))
