"""A store in a cluster: its keys are in one slot, its node is found anew, and no script runs by half."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from builders import FakeClock, new_job
from chaos.processes import free_port
from redis.exceptions import ConnectionError as RedisConnectionError, ResponseError
from store_inspection import private_server
from valkey_cluster import ValkeyCluster, ValkeyNode
from waiting import until

from worker.cli.doctor.cluster_checks import cluster_checks
from worker.jobs.errors import StoreRefused, StoreUnavailable
from worker.redis_address import parse
from worker.store import channels, keys
from worker.store.connection.cluster import slot_of
from worker.store.connection.command_rights import missing_rules
from worker.store.connection.key_tag import tag_of, with_tag
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import connect
from worker.store.connection.required_commands import REQUIRED
from worker.store.connection.subscriber import Subscriber
from worker.store.connection.wrong_types import set_aside_wrong_types
from worker.store.jobs.repository import Jobs


@asynccontextmanager
async def cluster_of(folder: Path, tag: str = "t") -> AsyncIterator[tuple[ValkeyCluster, ArqRedis]]:
    """Three primaries without replicas, and a client whose store is in the slot of this tag."""
    async with ValkeyCluster(folder / "cluster", tag, replicas=False) as cluster:
        client = connect(cluster.url)
        try:
            yield cluster, client
        finally:
            await client.aclose()


async def another(cluster: ValkeyCluster, owner: ValkeyNode) -> ValkeyNode:
    return next(node for node in cluster.nodes if node is not owner)


async def test_the_server_sees_the_tag_in_every_key_of_every_command(redis: ArqRedis) -> None:
    for command in {*REQUIRED["api"], *REQUIRED["worker"], ("SCAN", "0", "MATCH", "vigil:*")}:
        tagged = with_tag("{x}", command)
        plain = {b"{x}" + key for key in await keys_of(redis, command)}
        extra = {b"{x}vigil:unmoved"} if command[0] == "EVALSHA" else set()
        assert set(await keys_of(redis, tagged)) == plain | extra, command
    assert with_tag("{x}", ("SCAN", "0", "MATCH", "vigil:*", "COUNT", 5)) == (
        *("SCAN", "0", "MATCH", "{x}vigil:*"),
        *("COUNT", "5"),
    )
    with pytest.raises(ValueError, match="GEOADD"):
        with_tag("{x}", ("GEOADD", "a", "1", "1", "b"))


async def keys_of(redis: ArqRedis, command: tuple[object, ...]) -> list[bytes]:
    """The keys of a command as the server reads it; asked past the tag, if this client has one."""
    words = [b"COMMAND", b"GETKEYS", *(word.encode() for word in " ".join(map(str, command)).split(" "))]
    sent = b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)])
    async with redis.client() as one:
        await one.connection.send_packed_command(sent)
        try:
            found: list[bytes] = await one.connection.read_response()
        except ResponseError as error:
            if "no key arguments" in str(error):
                return []
            raise
    return found


async def test_all_keys_of_a_store_are_in_its_slot_and_two_stores_do_not_see_each_other(tmp_path: Path) -> None:
    async with cluster_of(tmp_path, "one") as (cluster, client):
        other = connect(cluster.url.replace("/one", "/two"))
        try:
            own_jobs, other_jobs = Jobs(client, FakeClock()), Jobs(other, FakeClock(start=99))
            job = (await own_jobs.submit(new_job()))[0].job
            assert await other_jobs.load(job.id) is None
            assert (await other_jobs.claim("w2", 5, 15))[1] == []
            assert [one.job.id for one in (await own_jobs.claim("w1", 5, 15))[1]] == [job.id]
            await other_jobs.submit(new_job())
            messages = asyncio.Queue[tuple[str, bytes]]()
            subscribers = [
                Subscriber(one, lambda *message: messages.put_nowait(message), lambda _: None)
                for one in (client, other)
            ]
            tasks = [asyncio.create_task(one.run()) for one in subscribers]
            for one in subscribers:
                one.subscribe(channels.WAKE)
            await until("a subscriber", lambda: client.publish(channels.WAKE, "mine"))
            await until("a subscriber", lambda: other.publish(channels.WAKE, "theirs"))
            assert {await messages.get(), await messages.get()} == {
                (channels.WAKE, b"mine"),
                (channels.WAKE, b"theirs"),
            }
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            found = sorted([name async for name in client.scan_iter(match="vigil:*")])
            assert keys.job(job.id).encode() in found, "names come without the tag"
            for node in cluster.nodes:
                for tag in ("one", "two"):
                    count = await node.client.execute_command("CLUSTER COUNTKEYSINSLOT", slot_of(tag))
                    assert (count > 0) == await node_serves(node, tag)
                rest = [name for name in await node.client.keys("*") if not name.startswith(("{one}", "{two}"))]
                assert rest == []
        finally:
            await other.aclose()


async def node_serves(node: ValkeyNode, tag: str) -> bool:
    rows = await node.client.execute_command("CLUSTER SLOTS")
    return any(row[0] <= slot_of(tag) <= row[1] and row[2][1] == node.port for row in rows)


async def test_a_slot_that_has_moved_is_followed_within_the_same_call(tmp_path: Path) -> None:
    async with cluster_of(tmp_path) as (cluster, client):
        jobs = Jobs(client, FakeClock())
        first = (await jobs.submit(new_job()))[0].job
        messages = asyncio.Queue[bytes]()
        subscriber = Subscriber(client, lambda _, data: messages.put_nowait(data), lambda _: None)
        subscriber.subscribe(channels.WAKE)
        listening = asyncio.create_task(subscriber.run())
        await until("a subscriber", lambda: client.publish(channels.WAKE, "before"))
        owner = await cluster.owner()
        await cluster.move_slot(owner, await another(cluster, owner))
        assert (await jobs.load(first.id)).job == first
        second = (await jobs.submit(new_job()))[0].job
        assert {one.job.id for one in (await jobs.claim("w1", 5, 15))[1]} == {first.id, second.id}
        await until("the subscriber at the new node", lambda: client.publish(channels.WAKE, "after"))
        while await messages.get() != b"after":
            pass
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_no_script_begins_while_its_slot_moves_key_by_key(tmp_path: Path) -> None:
    async with cluster_of(tmp_path) as (cluster, client):
        owner = await cluster.owner()
        target = await another(cluster, owner)
        await client.set("vigil:probe", "before")
        two_steps = client.register_script(
            script(client).script + "call('SET', KEYS[1], 'after') call('SET', 'vigil:deployment', 'new')"
        )
        slot = slot_of("t")
        await target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", await owner.myself())
        await owner.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", await target.myself())
        with pytest.raises(RedisConnectionError, match="moving the slot"):
            await two_steps(keys=["vigil:probe"])
        assert await client.get("vigil:probe") == b"before", "not even its first step was done"
        with pytest.raises(StoreUnavailable) as refused:
            await Jobs(client, FakeClock()).submit(new_job())
        assert "moving the slot" in refused.value.reason
        for node in (owner, target):
            await node.client.execute_command("CLUSTER SETSLOT", slot, "STABLE")
        await two_steps(keys=["vigil:probe"])
        assert await client.mget("vigil:probe", "vigil:deployment") == [b"after", b"new"]


async def test_a_value_that_is_set_aside_keeps_its_name_in_the_store(tmp_path: Path) -> None:
    async with cluster_of(tmp_path) as (_, client):
        await client.set(keys.LEASED, "no set")
        await set_aside_wrong_types(client, {keys.LEASED: "zset"})
        assert await client.get(keys.aside(keys.LEASED)) == b"no set"
        assert await client.zrange(keys.ASIDES, 0, -1) == [keys.LEASED.encode()]


async def test_what_is_wrong_with_the_address_or_the_cluster_is_said(tmp_path: Path) -> None:
    async with cluster_of(tmp_path) as (cluster, client), private_server() as (lone, _):
        owner = await cluster.owner()
        plain = connect(f"redis://127.0.0.1:{(await another(cluster, owner)).port}")
        assert "write the address as redis+cluster://" in await why(plain)
        port = cluster.nodes[0].port
        assert (await why(connect(f"redis+cluster://127.0.0.1:1,127.0.0.1:{port}/t"))) == "", "any node will do"
        assert "can't be reached" in await why(connect("redis+cluster://127.0.0.1:1/t"))
        lone_port = free_port()
        await lone.config_set("port", str(lone_port))
        assert "no cluster" in await why(connect(f"redis+cluster://127.0.0.1:{lone_port}/t"))
        for node in cluster.nodes:
            rules = "on >pw ~{t}vigil:* &{t}vigil:* +@all -cluster"
            await node.client.execute_command("ACL SETUSER", "few", "reset", *rules.split())
        few = connect(cluster.url.replace("://", "://few:pw@"))
        assert "+cluster|slots" in await why(few, StoreRefused)
        for node in cluster.nodes:
            await node.client.execute_command("ACL SETUSER", "few", "+cluster|slots", "-spublish", "resetchannels")
        few = connect(cluster.url.replace("://", "://few:pw@"))
        assert await missing_rules(few, "api") == ["&{t}vigil:*", "+spublish", "~{t}arq:*"]
        await few.aclose()
        assert tag_of(client) == "{t}"
        (check,) = [one async for one in cluster_checks(client, parse(cluster.url))]
        assert check.state == "warning"
        assert f"slot {slot_of('t')} on 127.0.0.1:{owner.port}" in check.detail
        assert "no replica" in check.detail
        assert "cluster-require-full-coverage" in check.detail
        await owner.client.execute_command("CLUSTER DELSLOTS", slot_of("t"))
        assert "slot of this store" in await why(client)


async def why(client: ArqRedis, kind: type[StoreUnavailable] = StoreUnavailable) -> str:
    try:
        await Jobs(client, FakeClock()).load("job_x")
    except kind as error:
        return error.reason
    finally:
        await client.aclose()
    return ""
