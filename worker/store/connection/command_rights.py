"""Whether Redis would let us do all that we need, asked without doing any of it.

Every command is queued in a transaction that is then discarded: a server checks rights when it queues, and runs
nothing. One trip, whatever the server is (ACL DRYRUN is an administrator's).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from arq.connections import ArqRedis
from redis.exceptions import NoPermissionError, ResponseError

from worker.store.connection.errors import store_errors
from worker.store.connection.required_commands import REQUIRED, Role, Words, name_of


async def missing_rules(redis: ArqRedis, role: Role) -> list[str]:
    """What the user of this client lacks, as rules that grant it (`+time`, `~vigil:*`, `&vigil:*`); [] = nothing.

    StoreUnavailable when Redis can't be asked.
    """
    async with store_errors("say what we may do"):
        return await _find_missing(redis.connection_pool, role)


async def _find_missing(pool: Any, role: Role) -> list[str]:
    connection, clean = await pool.get_connection(), False
    try:
        refused = await _refused(connection, [("MULTI",)])
        if not refused:  # without a transaction the others would be carried out
            refused += await _refused(connection, [*REQUIRED[role], ("DISCARD",)])
            refused += await _refused(connection, [("MULTI",), ("EXEC",)])
        clean = not refused
        return _rules(refused)
    finally:
        if not clean:
            await connection.disconnect()  # it may be inside a transaction
        await pool.release(connection)


async def _refused(connection: Any, commands: Iterable[Words]) -> list[tuple[Words, str]]:
    sent = list(commands)
    await connection.send_packed_command(connection.pack_commands(sent))
    refused = []
    for words in sent:
        try:
            await connection.read_response()
        except NoPermissionError as error:
            refused.append((words, str(error)))
        except ResponseError:
            pass  # full, a replica, WATCH inside a transaction: allowed, and told by others
    return refused


async def user_of(redis: ArqRedis) -> str | None:
    """The name of the user that this client is, or None where it may not ask."""
    try:
        name = await redis.execute_command("ACL WHOAMI")
    except ResponseError:  # NoPermissionError is one
        return None
    return name.decode() if isinstance(name, bytes) else str(name)


def _rules(refused: list[tuple[Words, str]]) -> list[str]:
    found: dict[str, None] = {}
    for words, said in refused:
        if "channel" in said:
            found["&vigil:*"] = None
        elif " key" in said:
            found[f"~{words[_key_at(words)].partition(':')[0]}:*"] = None
        else:
            found[f"+{name_of(words)}"] = None
    return sorted(found)


def _key_at(words: Words) -> int:
    return {"EVALSHA": 3, "ZINTER": 2, "ZINTERCARD": 2}.get(words[0], 1)


def advice(user: str | None, rules: list[str]) -> str:
    """One line: what is missing, and the command that grants it."""
    return (
        f"the Redis user {user or 'of VIGIL_REDIS_URL'} lacks {' '.join(rules)}: take the rules of ops/users.acl, or "
        f"ACL SETUSER {user or 'NAME'} {' '.join(rules)}"
    )
