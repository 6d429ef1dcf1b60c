"""The embedded Valkey: one for each data folder, durable, gone with its owner, wherever the folder lies."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import waiting
from builders import FakeClock, new_job

from worker.embedded import EmbeddedValkey, socket_path, url
from worker.jobs.errors import StoreUnavailable
from worker.store.connection.durability import check_durability
from worker.store.connection.pool import connect
from worker.store.jobs.repository import Jobs

ROOT = Path(__file__).resolve().parents[2]
OWNER = """
import asyncio, sys
from pathlib import Path
from worker.embedded import EmbeddedValkey

async def main():
    server = EmbeddedValkey(Path(sys.argv[1]))
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def until(what, condition):
    async def look():
        return condition()

    await waiting.until(what, look)


def alive(pid: int) -> bool:
    """True for a process that runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def submit(folder: Path, start: int = 0):
    client = connect(url(folder))
    try:
        return (await Jobs(client, FakeClock(start=start)).submit(new_job()))[0].job
    finally:
        await client.aclose()


async def load(folder: Path, job_id: str):
    client = connect(url(folder))
    try:
        stored = await Jobs(client, FakeClock()).load(job_id)
        return stored and stored.job
    finally:
        await client.aclose()


async def test_jobs_survive_a_stop_and_a_start(tmp_path):
    async with EmbeddedValkey(tmp_path):
        job = await submit(tmp_path)
    async with EmbeddedValkey(tmp_path):
        assert await load(tmp_path, job.id) == job


async def test_jobs_survive_a_sigkill_of_the_server(tmp_path):
    """What was answered was on disk: appendfsync always."""
    server = EmbeddedValkey(tmp_path)
    await server.start()
    taken = [await submit(tmp_path, start=n * 10) for n in range(20)]
    os.kill(server.pid, signal.SIGKILL)
    await server.stop()
    async with EmbeddedValkey(tmp_path):
        for job in taken:
            assert await load(tmp_path, job.id) == job


async def test_the_server_keeps_what_we_insist_on_and_only_for_us(tmp_path):
    async with EmbeddedValkey(tmp_path) as server:
        client = connect(server.url)
        config = await check_durability(client)
        assert (config["appendonly"], config["appendfsync"], config["maxmemory_policy"]) == (
            "yes",
            "always",
            "noeviction",
        )
        assert (await client.config_get("port"))["port"] == "0", "no network port"
        await client.aclose()
        assert socket_path(tmp_path).stat().st_mode & 0o077 == 0


async def test_a_second_one_on_the_same_folder_shares_the_first_ones_server(tmp_path):
    async with EmbeddedValkey(tmp_path) as first:
        job = await submit(tmp_path)
        async with EmbeddedValkey(tmp_path) as second:
            assert first.pid is not None
            assert second.pid is None
            assert await load(tmp_path, job.id) == job
        assert await load(tmp_path, job.id) == job, "the guest's leaving does not stop the server"


async def test_a_guest_goes_on_when_its_host_has_left(tmp_path):
    host, guest = EmbeddedValkey(tmp_path), EmbeddedValkey(tmp_path)
    await host.start()
    await guest.start()
    job = await submit(tmp_path)
    await host.stop()
    await until("the guest's own server", lambda: guest.pid is not None and socket_path(tmp_path).exists())
    assert await load(tmp_path, job.id) == job
    await guest.stop()
    async with EmbeddedValkey(tmp_path) as next_one:
        assert next_one.pid is not None, "the guest left nothing behind"


async def test_two_that_start_at_once_have_one_server(tmp_path):
    both = [EmbeddedValkey(tmp_path), EmbeddedValkey(tmp_path)]
    await asyncio.gather(*(one.start() for one in both))
    assert sorted(one.pid is None for one in both) == [False, True]
    for one in both:
        await one.stop()


async def test_after_a_stop_nothing_runs_and_the_folder_is_free(tmp_path):
    server = EmbeddedValkey(tmp_path)
    await server.start()
    pid = server.pid
    await server.stop()
    assert not alive(pid)
    await server.stop()
    async with EmbeddedValkey(tmp_path) as again:
        assert again.pid is not None


async def test_kill_9_of_the_owner_leaves_no_orphan_and_no_loss(tmp_path):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
    )
    try:
        pid = int(await asyncio.to_thread(owner.stdout.readline))
        job = await submit(tmp_path)
        assert alive(pid)
        owner.kill()
        await asyncio.to_thread(owner.wait)
        await until("the server to follow its owner", lambda: not alive(pid))
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    async with EmbeddedValkey(tmp_path) as heir:
        assert heir.pid is not None, "the folder is not locked by a ghost"
        assert await load(tmp_path, job.id) == job


async def test_a_long_path_is_no_obstacle(tmp_path):
    folder = tmp_path / ("deep-" * 20) / ("er-" * 30)
    assert len(str(folder)) > 107, "longer than the kernel takes for a socket"
    async with EmbeddedValkey(folder) as server:
        job = await submit(folder)
        assert len(server.url) < 107
        assert socket_path(folder).parent.stat().st_mode & 0o077 == 0
    async with EmbeddedValkey(folder):
        assert await load(folder, job.id) == job
    assert list(folder.glob("appendonlydir/*")), "the data lie in the folder all the same"


async def test_a_folder_with_odd_characters_is_no_obstacle(tmp_path):
    folder = tmp_path / "mit Leerzeichen und ü"
    async with EmbeddedValkey(folder) as server:
        job = await submit(folder)
        assert await load(folder, job.id) == job
        assert server.pid is not None


async def test_a_server_that_never_answers_says_where_to_look(tmp_path, monkeypatch):
    monkeypatch.setattr("worker.embedded._START_TIMEOUT_S", 0.2)
    with (tmp_path / "valkey.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match=r"did not start; see .*valkey\.log"):
            await EmbeddedValkey(tmp_path).start()
