"""Give every key and channel of a client the hash tag of its store: in a cluster they are in one slot then.

The tag stands before the whole name, `{tag}vigil:job:x`, and only on the way to the server: what a client sends gets
it, what it reads loses it, and within scripts `key_tag.lua` does the same. So a store in a cluster has the keys that it
has on a server of its own. A client without a tag does none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool

from worker.store import keys

_WITHOUT: Final = """
ACL AUTH CLIENT CLUSTER CONFIG DBSIZE DISCARD EXEC HELLO INFO MULTI PING SCRIPT SELECT TIME UNWATCH WAIT
"""
_WITH_ONE: Final = """
APPEND EXPIRE GET GETRANGE HDEL HEXISTS HGET HGETALL HINCRBY HKEYS HLEN HMGET HSCAN HSET HSETNX HSTRLEN HVALS INCR
INCRBY LINDEX LLEN LPUSH LRANGE LREM LSET LTRIM PERSIST PEXPIRE PFADD PSETEX PTTL RPUSH SADD SCARD SET SETEX SISMEMBER
SMEMBERS SMISMEMBER SREM STRLEN TTL TYPE XADD XDEL XLEN XRANGE XREVRANGE XTRIM ZADD ZCARD ZCOUNT ZINCRBY ZMSCORE
ZPOPMIN ZRANGE ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYSCORE ZREVRANK ZSCORE
"""
_NONE: Final = frozenset(_WITHOUT.split())
_FIRST: Final = frozenset(_WITH_ONE.split())
_SHARDED: Final = {name: f"S{name}" for name in ("PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE")}


def _all(command: tuple[Any, ...]) -> Iterable[int]:
    return range(1, len(command))


def _two(_: tuple[Any, ...]) -> Iterable[int]:
    return (1, 2)


def _first(_: tuple[Any, ...]) -> Iterable[int]:
    return (1,)


def _counted(command: tuple[Any, ...]) -> Iterable[int]:
    return range(2, 2 + int(command[1]))


def _target_and_counted(command: tuple[Any, ...]) -> Iterable[int]:
    return (1, *range(3, 3 + int(command[2])))


_PLACES: Final[dict[str, Callable[[tuple[Any, ...]], Iterable[int]]]] = {
    **dict.fromkeys(("DEL", "EXISTS", "MGET", "PFCOUNT", "UNLINK", "WATCH", "SUBSCRIBE", "UNSUBSCRIBE"), _all),
    **dict.fromkeys(("COPY", "RENAME"), _two),
    **dict.fromkeys(("KEYS", "PUBLISH"), _first),
    **dict.fromkeys(("ZINTER", "ZINTERCARD"), _counted),
    "ZUNIONSTORE": _target_and_counted,
}
"""Where the keys, channels or patterns of other commands stand."""


def tag_of(redis: Any) -> str:
    """Return the tag of this client's keys, with its braces; "" for a client without one."""
    tag: str = vars(redis).get("key_tag", "")
    return tag


def with_tag(tag: str, command: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a command with the tag before each of its keys or channels. Raises ValueError for an unknown command.

    A script gets one more key, which never exists: while a cluster moves the slot key by key, it refuses a script with
    a key that is not there before its first step. A key that a script builds would stop it between two steps.
    Messages go by the slot of their channel: to the nodes that have it, not to the whole cluster.
    """
    head = command[0].decode() if isinstance(command[0], bytes) else command[0]
    name, *rest = head.upper().split()
    if name in _FIRST and not rest:
        return (name, _tagged(tag, command[1]), *command[2:])
    if name == "EVALSHA":
        count = int(command[2])
        declared = (_tagged(tag, key) for key in command[3 : 3 + count])
        return (name, command[1], count + 1, *declared, tag + keys.UNMOVED, *command[3 + count :])
    if name in _NONE:
        return command
    if name == "SCAN":
        return _scan(tag, command)
    if name not in _PLACES:
        raise ValueError(f"where the keys of {name} stand is not known: add it to worker/store/connection/key_tag.py")
    tagged = list(command)
    tagged[0] = _SHARDED.get(name, head)  # both words of one that has two
    for place in _PLACES[name](command):
        tagged[place] = _tagged(tag, command[place])
    return tuple(tagged)


def _tagged(tag: str, name: Any) -> Any:
    return tag.encode() + bytes(name) if isinstance(name, bytes | bytearray | memoryview) else f"{tag}{name}"


def _scan(tag: str, command: tuple[Any, ...]) -> tuple[Any, ...]:
    options = [part.decode() if isinstance(part, bytes) else str(part) for part in command[2:]]
    pattern = "*"
    for at in range(0, len(options), 2):
        if options[at].upper() == "MATCH":
            pattern = options[at + 1]
            del options[at : at + 2]
            break
    return ("SCAN", command[1], "MATCH", tag + pattern, *options)


class TaggedClient(ArqRedis):
    """A client whose keys have a tag."""

    key_tag: str

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command; of keys that it finds, return the names without the tag."""
        reply = await super().execute_command(*args, **options)
        match args[0]:
            case "SCAN":
                return reply[0], [name[len(self.key_tag) :] for name in reply[1]]
            case "KEYS":
                return [name[len(self.key_tag) :] for name in reply]
            case _:
                return reply


def tag_commands(pool: ConnectionPool, tag: str) -> None:
    """Let each connection of this pool give the tag to all that it sends; also scripts, transactions, subscriptions."""
    untagged = pool.connection_class

    class Tagging(untagged):  # type: ignore[misc, valid-type]
        def pack_command(self, *args: Any) -> list[bytes]:
            packed: list[bytes] = super().pack_command(*with_tag(tag, args))
            return packed

    pool.connection_class = Tagging
