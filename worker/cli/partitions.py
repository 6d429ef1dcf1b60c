"""Which stores a command works on that opens Redis itself: that of an app or a job, or each partition in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from worker.cli.errors import EXIT_USAGE, CliError
from worker.cli.processes import with_redis
from worker.jobs.errors import Refused
from worker.partitions import partition_of_job
from worker.settings import Settings
from worker.store.partitions.identity import check_partition
from worker.store.partitions.pins import Pins
from worker.store.partitions.stores import PartitionStore, partitions_open

T = TypeVar("T")
_CONNECTIONS = 4


@asynccontextmanager
async def open_stores(settings: Settings, *, writes: bool) -> AsyncIterator[Sequence[PartitionStore]]:
    """Open every store of the settings, home first; start the embedded server if there is none and it does not run.

    `writes`: refuse any store but the one that this machine knows, and a store that is another partition.
    """
    async with (
        with_redis(settings) as actual,
        partitions_open(actual, max_connections=_CONNECTIONS, guarded=writes) as stores,
    ):
        if writes and len(stores) > 1:
            await asyncio.gather(*(check_partition(one.redis, one.settings) for one in stores))
        yield stores


def chosen(settings: Settings, stores: Sequence[PartitionStore]) -> list[PartitionStore]:
    """Return the stores that a command works on: all, or the one that VIGIL_CLI_PARTITION names."""
    name = settings.cli_partition
    found = [one for one in stores if name in (None, one.partition.name)]
    if not found:
        known = ", ".join(one.partition.name for one in stores)
        raise CliError(f"VIGIL_CLI_PARTITION names no store of VIGIL_REDIS_URL; known: {known}", EXIT_USAGE)
    return found


async def store_for(
    settings: Settings, stores: Sequence[PartitionStore], *, app: str | None = None, job: str | None = None
) -> PartitionStore:
    """Return the store of this app or job: by VIGIL_CLI_PARTITION, by the pin, by the job's id.

    An app that there is nowhere is looked for in home. Raises CliError if nothing says which, Refused.
    """
    some = chosen(settings, stores)
    if len(some) == 1:
        return some[0]
    if app is not None:
        return await Pins(stores).find(app) or stores[0]
    named = None if job is None else partition_of_job(job, settings.partitions)
    if named is None:
        names = ", ".join(one.partition.name for one in stores)
        raise CliError(
            f"each partition has its own trail: give --app, or set VIGIL_CLI_PARTITION to one of {names}",
            EXIT_USAGE,
        )
    return next(one for one in stores if one.partition.name == named.name)


def in_one(
    settings: Settings,
    work: Callable[[PartitionStore], Awaitable[T]],
    *,
    writes: bool = False,
    app: str | None = None,
    job: str | None = None,
) -> T:
    """Run `work` on the store of an app or a job (see `store_for`) and return its result."""

    async def go() -> T:
        async with open_stores(settings, writes=writes) as stores:
            try:
                store = await store_for(settings, stores, app=app, job=job)
            except Refused as error:
                raise CliError(error.detail) from None
            return await work(store)

    return asyncio.run(go())


def in_each(
    settings: Settings, work: Callable[[PartitionStore], Awaitable[T]], *, writes: bool = False
) -> list[tuple[str, T]]:
    """Run `work` on each store in turn, home first; return the results with the names of the partitions."""

    async def go() -> list[tuple[str, T]]:
        async with open_stores(settings, writes=writes) as stores:
            return [(one.partition.name, await work(one)) for one in chosen(settings, stores)]

    return asyncio.run(go())


def heading(name: str, count: int) -> str:
    """Return the line above what is printed of one of several partitions, "" for the only one."""
    return f"partition {name}\n" if count > 1 else ""
