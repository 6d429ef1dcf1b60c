"""What the `vigil audit` commands share: access to the audit trail in Redis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from worker.cli.partitions import in_each, in_one
from worker.settings import Settings
from worker.store.connection.pool import Redis

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def with_trail(
    settings: Settings,
    work: Callable[[Redis], Awaitable[T]],
    *,
    writes: bool = False,
    app: str | None = None,
    job: str | None = None,
) -> T:
    """Run `work` on the Redis of the settings and return its result; starts the embedded server if it does not run.

    `writes`: refuse any store but the one that this machine knows. Reading is allowed in any. `app`, `job`: work in the
    partition of this app or job, where there are several.
    """
    return in_one(settings, lambda store: work(store.redis), writes=writes, app=app, job=job)


def with_each_trail(
    settings: Settings, work: Callable[[Redis], Awaitable[T]], *, writes: bool = False
) -> list[tuple[str, T]]:
    """Run `work` on each partition, as `with_trail` does; return the results with the names of the partitions."""
    return in_each(settings, lambda store: work(store.redis), writes=writes)
