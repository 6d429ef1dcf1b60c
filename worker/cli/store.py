"""`vigil store show` and `vigil store accept`: compare the store known here with Redis's, and accept another one.

`vigil doctor` has no option for it: the doctor changes nothing and anyone may run it; accepting is a decision.
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from worker.cli.errors import EXIT_FAILED
from worker.cli.processes import with_redis
from worker.clock import Clock
from worker.settings import Settings
from worker.settings_loader import load
from worker.store.connection.pool import connect
from worker.store.connection.store_guard import accept as accept_store, read_answer
from worker.store.connection.store_mark import StoreAnswer, StoreMark, describe, judge, load as load_mark
from worker.store.errors import store_errors

app = typer.Typer(
    help="Show which store is known; accept another.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


async def compare_store(settings: Settings, new: str | None = None) -> tuple[StoreMark | None, StoreAnswer, str]:
    """Return (this machine's mark, what Redis holds, what is wrong). `new`: first accept Redis as this deployment."""
    mark = load_mark(settings.mark_file)
    async with with_redis(settings) as actual:
        redis = connect(actual.store_url, max_connections=1, retries=1)
        try:
            if new is not None:
                await accept_store(redis, new)
            async with store_errors("say which deployment it holds"):
                answer = await read_answer(redis.execute_command, mark)
        finally:
            await redis.aclose()
    reason = judge(mark, answer)
    return mark, answer, describe(reason, mark, answer) if mark and reason else ""


@app.command()
def show(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Compare the deployment known here with Redis.

    Shows which deployment this machine knows and which one Redis holds. Exits 1 if they differ or records are missing.
    """
    settings = load()
    mark, answer, wrong = asyncio.run(compare_store(settings))
    if as_json:
        known = {"deployment": mark.deployment, "record": mark.record} if mark else None
        body = {"known": known, "redis": answer.deployment, "wrong": wrong or None, "file": str(settings.mark_file)}
        print(json.dumps(body, indent=2))
    else:
        print(f"known here  {mark.deployment if mark else 'nothing'}, in {settings.mark_file}")
        print(f"in Redis    {answer.deployment or 'no deployment'}")
        print(wrong or _verdict(mark, answer))
    if wrong:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def accept() -> None:
    """Accept what Redis holds now.

    Jobs that are missing in it are lost, so use it only if its data can't be brought back: see
    ops/runbook/StoreChanged.md. Redis gets a new deployment id. Every running process accepts it within a second, one
    that is down accepts it if it starts within a day.
    """
    new = Clock().random_bytes(8).hex()
    asyncio.run(compare_store(load(), new))
    print(f"accepted: Redis is deployment {new} from now on; processes continue within a second")


def _verdict(mark: StoreMark | None, answer: StoreAnswer) -> str:
    if mark is None:
        return "a process that starts here accepts what Redis holds"
    if answer.deployment == answer.accepted:
        return "it was accepted: the next process here uses it"
    return "they are the same, and nothing is missing"


def register(root: typer.Typer) -> None:
    """Add the commands to `root`."""
    root.add_typer(app, name="store")
