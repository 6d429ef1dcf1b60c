"""List every command that Vigil sends to Redis, by process: start-up, `vigil doctor`, `/readyz` and the rules of
`ops/users.acl` are checked against this list.

Each is written as it could be sent, with a key of Vigil's, so that a server says whether it would be allowed. Every
command that `worker/store`, its scripts or arq use is here: `tests/ops/test_ops_acl.py` runs all of Vigil as users who
may do this and nothing else.
"""

from __future__ import annotations

from typing import Final, Literal

from worker.store import channels, keys

Role = Literal["api", "worker"]
Arguments = tuple[str, ...]

_K: Final = keys.PROBE
_EMPTY: Final = "return 1"

_CONNECTION: Final[tuple[Arguments, ...]] = (("PING",), ("TIME",), ("INFO",), ("PUBLISH", channels.CHANGED, "x"))
_TRANSACTIONS: Final[tuple[Arguments, ...]] = (("WATCH", _K), ("UNWATCH",))
_CHANNELS: Final[tuple[Arguments, ...]] = (
    ("SUBSCRIBE", channels.CHANGED),
    ("UNSUBSCRIBE", channels.CHANGED),
)
_SCRIPTS: Final[tuple[Arguments, ...]] = (
    ("EVALSHA", "0" * 40, "1", _K),
    ("SCRIPT", "LOAD", _EMPTY),
)
_READS: Final[tuple[Arguments, ...]] = (
    ("EXISTS", _K),
    ("GET", _K),
    ("MGET", _K),
    ("STRLEN", _K),
    ("GETRANGE", _K, "0", "1"),
    ("HEXISTS", _K, "f"),
    ("HGET", _K, "f"),
    ("HGETALL", _K),
    ("HKEYS", _K),
    ("HLEN", _K),
    ("HMGET", _K, "f"),
    ("HSCAN", _K, "0"),
    ("HSTRLEN", _K, "f"),
    ("HVALS", _K),
    ("LINDEX", _K, "0"),
    ("LLEN", _K),
    ("LRANGE", _K, "0", "0"),
    ("SCARD", _K),
    ("SISMEMBER", _K, "m"),
    ("SMEMBERS", _K),
    ("SMISMEMBER", _K, "m"),
    ("PFCOUNT", _K),
    ("PTTL", _K),
    ("SCAN", "0"),
    ("TYPE", keys.AUDIT),
    ("XLEN", keys.AUDIT),
    ("XRANGE", keys.AUDIT, "-", "+"),
    ("XREVRANGE", keys.AUDIT, "+", "-"),
    ("ZCARD", _K),
    ("ZCOUNT", _K, "0", "1"),
    ("ZINTER", "1", _K),
    ("ZMSCORE", _K, "m"),
    ("ZRANGE", _K, "0", "0"),
    ("ZRANGEBYSCORE", _K, "0", "1"),
    ("ZRANK", _K, "m"),
    ("ZREVRANGE", _K, "0", "0"),
    ("ZREVRANGEBYSCORE", _K, "1", "0"),
    ("ZREVRANK", _K, "m"),
    ("ZSCORE", _K, "m"),
)
_WRITES: Final[tuple[Arguments, ...]] = (
    ("COPY", _K, _K),
    ("DEL", _K),
    ("EXPIRE", _K, "60"),
    ("PERSIST", _K),
    ("PEXPIRE", _K, "60000"),
    ("RENAME", _K, _K),
    ("SET", _K, "1"),
    ("PSETEX", _K, "60000", "1"),
    ("INCR", _K),
    ("INCRBY", _K, "1"),
    ("HDEL", _K, "f"),
    ("APPEND", _K, "x"),
    ("HINCRBY", _K, "f", "1"),
    ("HSET", _K, "f", "1"),
    ("HSETNX", _K, "f", "1"),
    ("LPUSH", _K, "m"),
    ("LREM", _K, "0", "m"),
    ("LSET", _K, "0", "m"),
    ("LTRIM", _K, "0", "0"),
    ("RPUSH", _K, "m"),
    ("PFADD", _K, "m"),
    ("SADD", _K, "m"),
    ("SREM", _K, "m"),
    ("XADD", keys.AUDIT, "*", "f", "1"),
    ("ZADD", _K, "1", "m"),
    ("ZREM", _K, "m"),
    ("ZREMRANGEBYRANK", _K, "0", "1"),
    ("ZREMRANGEBYSCORE", _K, "0", "1"),
    ("ZUNIONSTORE", _K, "1", _K),
)
_WORKERS: Final[tuple[Arguments, ...]] = (
    ("ZINTERCARD", "1", _K),
    ("ZPOPMIN", _K),
    ("DBSIZE",),
    ("ZINCRBY", "arq:probe", "1", "m"),
    ("PEXPIRE", "arq:probe", "60000"),
    ("RPUSH", keys.SEALS, "m"),
    ("LTRIM", keys.SEALS, "0", "0"),
    ("XDEL", keys.AUDIT, "1-1"),
    ("SET", keys.SEALING_LOCK, "1"),
    ("SET", keys.ARCHIVE, "1"),
    ("SET", keys.ARCHIVING_LOCK, "1"),
)
_COMMON: Final = (*_CONNECTION, *_TRANSACTIONS, *_CHANNELS, *_SCRIPTS, *_READS, *_WRITES)

PREFIXES: Final[tuple[str, ...]] = (
    *(
        keys.JOB,
        keys.TRAIL,
        keys.TEXT,
        keys.READY,
        keys.LATER,
        keys.LEASED,
        keys.RING,
        keys.RING_POSITION,
        keys.DEADLINE,
    ),
    *(
        keys.OUTBOX,
        keys.OUTPUT_OBJECTS,
        keys.UNARCHIVED,
        keys.TARGETS,
        keys.TARGET_QUEUE,
        keys.MESSAGE,
        keys.API_KEYS,
        keys.PAUSES,
        keys.QUARANTINE,
        keys.WORKERS,
    ),
    *(keys.job_input("x"), keys.job_output("x"), keys.app("x"), keys.chain_records("x"), keys.SETTLED, keys.SENDING),
    *(
        keys.terms("x"),
        keys.meter("x"),
        keys.METERS,
        keys.LIMITS,
        keys.limit_apps("x"),
        keys.LIMIT_LINE,
        keys.places("x"),
    ),
    "arq:queue",
    "arq:job:x",
)
"""Keys of every kind; each must be open for reading and writing."""

REQUIRED: Final[dict[Role, tuple[Arguments, ...]]] = {
    "api": (*_COMMON, *(("SET", key, "1") for key in PREFIXES)),
    "worker": (*_COMMON, *_WORKERS, *(("SET", key, "1") for key in PREFIXES)),
}
"""What a process of each role can't work without."""

IN_CLUSTER: Final[tuple[Arguments, ...]] = (("CLUSTER", "SLOTS"),)
"""What processes of each role need beside that in a cluster."""

CONNECTION_ONLY: Final = frozenset(
    {"multi", "exec", "discard", "select", "hello", "auth", "client|setinfo", "client|setname"}
)
"""What the connection itself needs; `select` and the names only where an address asks for them."""

OPTIONAL: Final = frozenset({"config|get", "acl|whoami", "acl|dryrun", "script|exists"})
"""Used where it is allowed, and done without where it is not."""


def name_of(arguments: Arguments) -> str:
    """The command as a rule names it: `get`, `script|load`."""
    name = arguments[0].lower()
    return f"{name}|{arguments[1].lower()}" if name in {"script", "config", "acl", "client", "cluster"} else name


def names(role: Role) -> frozenset[str]:
    """The commands that a role needs, as rules name them, with those of the connection."""
    return frozenset({name_of(arguments) for arguments in REQUIRED[role]}) | CONNECTION_ONLY
