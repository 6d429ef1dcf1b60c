"""`vigil store show`, `accept`, `seal`, `migrate`: compare and accept stores, seal old data, repeat the migrations.

`vigil doctor` has no option for it: the doctor changes nothing and anyone may run it; accepting is a decision.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from worker.cli.acting import By, actor_of
from worker.cli.audit.trail_access import with_each_trail
from worker.cli.errors import EXIT_FAILED, EXIT_USAGE, CliError
from worker.cli.partitions import heading, in_each, in_one
from worker.cli.rendering import clean
from worker.clock import Clock
from worker.settings_loader import load
from worker.store.audit.acts import ACCEPTED, MIGRATED, SEALED, Acts
from worker.store.connection.pool import Redis
from worker.store.connection.store_guard import accept as accept_store, read_answer
from worker.store.connection.store_mark import (
    StoreAnswer,
    StoreMark,
    accepted_deployment,
    describe,
    judge,
    load as load_mark,
)
from worker.store.errors import store_errors
from worker.store.lifecycle.sealing import StoreSealing
from worker.store.partitions.stores import PartitionStore
from worker.store.stats.migration_progress import begin_again

app = typer.Typer(
    help="Show or accept a store; seal, migrate data.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_Comparison = tuple[StoreMark | None, StoreAnswer, str]
"""This machine's mark of a store, what that holds, what is wrong."""


async def compare_store(store: PartitionStore) -> _Comparison:
    """Return how what this machine knows of a store compares with what the store holds."""
    mark = load_mark(store.settings.mark_file)
    async with store_errors("say which deployment it holds"):
        answer = await read_answer(store.redis.execute_command, mark)
    reason = judge(mark, answer)
    return mark, answer, describe(reason, mark, answer) if mark and reason else ""


@app.command()
def show(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Compare the deployment known here with Redis.

    Shows which deployment this machine knows and which one Redis holds. Exits 1 if they differ or records are missing.
    """
    settings = load()
    files = {one.name: str(settings.of(one).mark_file) for one in settings.partitions}
    found = in_each(settings, compare_store)
    if as_json:
        rows = [_row(files[name], compared) for name, compared in found]
        body = {"partitions": [{"partition": name, **row} for (name, _), row in zip(found, rows, strict=True)]}
        print(json.dumps(rows[0] if len(rows) == 1 else body, indent=2))
    else:
        for name, (mark, answer, wrong) in found:
            print(f"{heading(name, len(found))}known here  {mark.deployment if mark else 'nothing'}, in {files[name]}")
            print(f"in Redis    {answer.deployment or 'no deployment'}")
            print(wrong or _verdict(mark, answer))
    if any(wrong for _, (_, _, wrong) in found):
        raise typer.Exit(EXIT_FAILED)


def _row(file: str, compared: _Comparison) -> dict[str, Any]:
    mark, answer, wrong = compared
    known = {"deployment": mark.deployment, "record": mark.record} if mark else None
    return {"known": known, "redis": answer.deployment, "wrong": wrong or None, "file": file}


@app.command()
def accept(by: By = "") -> None:
    """Accept what Redis holds now.

    Jobs that are missing in it are lost, so use it only if its data can't be brought back: see
    ops/runbook/StoreChanged.md. Redis gets a new deployment id. Every running process accepts it within a second, one
    that is down accepts it if it starts within a day.
    """
    random, settings = Clock().random_bytes(8).hex(), load()
    names = [one.name for one in settings.partitions]
    if len(names) > 1 and settings.cli_partition is None:
        raise CliError(f"say which store is meant: set VIGIL_CLI_PARTITION to one of {', '.join(names)}", EXIT_USAGE)

    async def work(store: PartitionStore) -> str:
        async with store_errors("say which deployment it holds"):
            held = (await read_answer(store.redis.execute_command, None)).deployment
        new = accepted_deployment(random, held, load_mark(store.settings.mark_file))
        await accept_store(store.redis, new)
        await Acts(store.redis, Clock(), actor_of(by)).record(ACCEPTED, deployment=new)
        return new

    new = in_one(settings, work)
    print(f"accepted: Redis is deployment {new} from now on; processes continue within a second")


@app.command()
def seal(by: By = "", as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Seal what is older than the encryption.

    Or older than the release that gave records a MAC. Trusts what Redis holds now: run it once after an upgrade, or
    after VIGIL_ENCRYPTION_KEYS was first set, when you know who could write to Redis. Encrypts what is plain, gives
    records a MAC and notes them in the audit trail. Processes may run; it may be repeated. Exits 1 while something is
    left to do.
    """
    settings = load()
    if not settings.encryption_keys:
        raise CliError("VIGIL_ENCRYPTION_KEYS is not set; `vigil keys generate-encryption` makes a key", EXIT_USAGE)
    accepting = settings.model_copy(update={"accept_unsealed": True})

    async def work(redis: Redis) -> tuple[dict[str, int], list[str]]:
        await Acts(redis, Clock(), actor_of(by)).record(SEALED)
        sealing = StoreSealing(redis, Clock())
        return dict(await sealing.run()), sealing.accepted

    found = with_each_trail(accepting, work, writes=True)
    counts = {name: sum(some[name] for _, (some, _) in found) for name in found[0][1][0]}
    accepted = [name for _, (_, names) in found for name in names]
    left = counts["jobs_not_over"] + counts["changed_meanwhile"] + counts["unreadable"]
    if as_json:
        print(json.dumps({**counts, "accepted": accepted, "done": not left}, indent=2))
    else:
        for name in accepted:
            print(f"accepted {clean(name)}")
        print(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
        print(_seal_verdict(counts, on=settings.accept_unsealed))
    if left:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def migrate(by: By = "") -> None:
    """Have all migrations done once more.

    Workers do them by themselves after an upgrade. This is for data that an older release has written after that, while
    no newer worker saw it: after a return to the older release, or a restored copy. Processes may run; `vigil doctor`
    shows how far it is.
    """
    settings = load()

    async def work(redis: Redis) -> None:
        await Acts(redis, Clock(), actor_of(by)).record(MIGRATED)
        await begin_again(redis)

    with_each_trail(settings, work, writes=True)
    print("the migrations begin again as soon as a worker looks; `vigil doctor` shows how far they are")


def _seal_verdict(counts: dict[str, int], *, on: bool) -> str:
    if counts["jobs_not_over"]:
        return (
            "plain jobs are not over yet: keep VIGIL_ACCEPT_UNSEALED=1 until they are (without it they fail), then run "
            "this again"
        )
    if counts["changed_meanwhile"]:
        return "run it again: something changed in the meantime"
    if counts["unreadable"]:
        return "some records have a wrong MAC or can't be read: `vigil audit verify --records` names them"
    return "done" + ("; VIGIL_ACCEPT_UNSEALED can be removed" if on else "")


def _verdict(mark: StoreMark | None, answer: StoreAnswer) -> str:
    if mark is None:
        return "a process that starts here accepts what Redis holds"
    if answer.deployment == answer.accepted:
        return "it was accepted: the next process here uses it"
    return "they are the same, and nothing is missing"


def register(root: typer.Typer) -> None:
    """Add the commands to `root`."""
    root.add_typer(app, name="store")
