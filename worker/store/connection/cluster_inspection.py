"""Look at the cluster around a store: the nodes that have its slot, how each keeps data, and what would stop it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from redis.exceptions import RedisError

from worker.jobs.errors import StoreUnavailable
from worker.redis_address import Address, Scheme
from worker.store.connection.cluster import SLOTS, Node, finder_of
from worker.store.connection.durability import check_durability
from worker.store.connection.pool import Redis, connect_to
from worker.store.errors import store_errors
from worker.telemetry.events import emit


@dataclass(frozen=True, slots=True)
class ShardNode:
    """A node that has the store. `settings`: of `check_durability`, or None for one that doesn't answer."""

    name: str
    settings: dict[str, str] | None


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What was found. `nodes`: the primary of the store first, then its replicas.

    `uncovered`: how many slots no node has; `stops_when_uncovered`: whether one of them stops the whole cluster, None
    where CONFIG is forbidden.
    """

    slot: int
    nodes: tuple[ShardNode, ...]
    uncovered: int
    stops_when_uncovered: bool | None

    @property
    def problems(self) -> list[str]:
        """What makes the store less safe, or stop sooner, than it could; one sentence each."""
        found = list[str]()
        if len(self.nodes) == 1:
            found.append("the primary of this store has no replica: nobody takes over when it ends")
        silent = [node.name for node in self.nodes if node.settings is None]
        if silent:
            found.append(f"these nodes of this store do not answer this user: {', '.join(silent)}")
        for node in self.nodes[1:]:
            if node.settings and node.settings["appendonly"] == "no":
                found.append(f"the replica {node.name} keeps no append-only file: after a failover jobs are in memory")
            if node.settings and node.settings["maxmemory_policy"] not in {"noeviction", "unknown"}:
                found.append(f"the replica {node.name} evicts keys: after a failover accepted jobs could vanish")
        if self.uncovered:
            found.append(f"{self.uncovered} slots have no node")
        if self.stops_when_uncovered:
            found.append("cluster-require-full-coverage is yes: the loss of slots of others stops this store too")
        return found


async def inspect_cluster(redis: Redis, address: Address) -> ClusterState | None:
    """Return what was found, or None for a client of no cluster. Raises StoreUnavailable."""
    finder = finder_of(redis)
    if finder is None:
        return None
    async with store_errors("say which nodes its cluster has"):
        rows = await finder.rows()
        coverage = await _stops_when_uncovered(redis)
    covered = sum(row[1] - row[0] + 1 for row in rows)
    own = next((row[2:] for row in rows if row[0] <= finder.slot <= row[1]), [])
    nodes = [ShardNode(f"{host}:{port}", await _settings(address, (host, port))) for host, port, _ in own]
    return ClusterState(finder.slot, tuple(nodes), SLOTS - covered, coverage)


async def warn_of_cluster(redis: Redis, address: Address) -> None:
    """Tell what makes a store in a cluster less safe than it could be. Raises StoreUnavailable."""
    state = await inspect_cluster(redis, address)
    for problem in state.problems if state else ():
        emit("store.cluster", reason=problem)


async def _stops_when_uncovered(redis: Redis) -> bool | None:
    try:
        found = await redis.config_get("cluster-require-full-coverage")
    except RedisError:
        return None  # a managed cluster forbids CONFIG
    value = found.get("cluster-require-full-coverage")
    return None if value is None else value == "yes"


async def _settings(address: Address, node: Node) -> dict[str, str] | None:
    """Ask one node of the cluster by itself."""
    scheme: Scheme = "rediss" if address.encrypted else "redis"
    client = connect_to(replace(address, scheme=scheme, hosts=(node,), tag=""), max_connections=1, retries=0)
    try:
        return await check_durability(client, allow_eviction=True)
    except StoreUnavailable:
        return None
    finally:
        await client.aclose()
