"""`vigil store show` and `vigil store accept`: which store is known here, which one Redis holds, and that it is meant.

Commands of their own and no option of the doctor: the doctor only looks and may be run by anybody, this is a decision.
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from worker.cli.errors import BAD
from worker.cli.processes import with_redis
from worker.clock import Clock
from worker.settings import Settings
from worker.settings_loader import load
from worker.store.connection.pool import connect, store_errors
from worker.store.connection.store_guard import accept as accept_store, look
from worker.store.connection.store_mark import StoreAnswer, StoreMark, judge, load as load_mark, sentence

app = typer.Typer(
    help="Show which store is known; accept another.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


async def found(settings: Settings, new: str | None = None) -> tuple[StoreMark | None, StoreAnswer, str]:
    """(the mark of this machine, what Redis says, what is wrong); `new` is accepted first, if given."""
    mark = load_mark(settings.mark_file)
    async with with_redis(settings) as ours:
        redis = connect(ours.store_url, max_connections=1, patience=1)
        try:
            if new is not None:
                await accept_store(redis, new)
            async with store_errors("say which deployment it holds"):
                seen = await look(redis.execute_command, mark)
        finally:
            await redis.aclose()
    reason = judge(mark, seen)
    return mark, seen, sentence(reason, mark, seen) if mark and reason else ""


@app.command()
def show(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Compare what is known here with Redis.

    Which deployment this machine knows and which one Redis holds. Exits 1 when they differ, or records are missing.
    """
    settings = load()
    mark, seen, wrong = asyncio.run(found(settings))
    if as_json:
        known = {"deployment": mark.deployment, "record": mark.record} if mark else None
        said = {"known": known, "redis": seen.deployment, "wrong": wrong or None, "file": str(settings.mark_file)}
        print(json.dumps(said, indent=2))
    else:
        print(f"known here  {mark.deployment if mark else 'nothing'}, in {settings.mark_file}")
        print(f"in Redis    {seen.deployment or 'no deployment'}")
        print(wrong or _words(mark, seen))
    if wrong:
        raise typer.Exit(BAD)


@app.command()
def accept() -> None:
    """Say that what Redis holds now is meant.

    Although jobs are missing from it: only after its data could not be brought back, see ops/runbook/StoreChanged.md.
    It gets a new deployment id; every process that knew another one takes it over within a second (those that are down
    have a day).
    """
    new = Clock().dice(8).hex()
    asyncio.run(found(load(), new))
    print(f"accepted: Redis is deployment {new} from now on; processes go on within a second")


def _words(mark: StoreMark | None, seen: StoreAnswer) -> str:
    if mark is None:
        return "a process that starts here takes what Redis holds"
    if seen.deployment == seen.accepted:
        return "it was accepted: a process here takes it over"
    return "they are the same, and nothing is missing"


def register(root: typer.Typer) -> None:
    """Put the commands on the app."""
    root.add_typer(app, name="store")
