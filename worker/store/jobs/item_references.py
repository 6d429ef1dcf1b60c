"""Find the job behind the id that the provider gave to an item of its output: an app may name the item by it.

The reference is written in the commit that stores the output and kept as long as the output. It grants nothing: who
reads an item by it checks that the job is the app's, and that it has such an item.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from arq.connections import ArqRedis

from worker.jobs import ids
from worker.store import keys
from worker.store.commands import Command
from worker.store.errors import store_errors
from worker.store.jobs.stored_job import OutputChange

_MAX_ITEMS: Final = 256  # of one output; later ones can't be named
_MAX_LENGTH: Final = 128


def named_items(output: Iterable[Any]) -> tuple[str, ...]:
    """Return the provider's ids of the items of an output."""
    names = (item.get("id") for item in output if isinstance(item, dict))
    return tuple(name for name in names if isinstance(name, str) and 0 < len(name) <= _MAX_LENGTH)[:_MAX_ITEMS]


def item_commands(app: str, output: OutputChange, keep: int) -> list[Command]:
    """Return the commands that note whose the items of an output are; `keep`: seconds that a settled job is kept."""
    return [("SET", keys.ref("item", f"{app}:{name}"), output.job_id, "EX", keep) for name in output.items]


async def jobs_of_items(redis: ArqRedis, app: str, names: Sequence[str]) -> dict[str, str]:
    """Return by item id the job whose output it is, for those that are known of this app."""
    known = [name for name in names if len(name) <= _MAX_LENGTH]
    if not known:
        return {}
    async with store_errors("look for items"):
        rows = await redis.mget([keys.ref("item", f"{app}:{name}") for name in known])
    found = {name: row.decode(errors="replace") for name, row in zip(known, rows, strict=True) if row}
    return {name: job_id for name, job_id in found.items() if ids.is_job_id(job_id)}
